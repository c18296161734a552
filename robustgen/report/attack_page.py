"""The report of one attack run: what was found, how, how far it can be trusted, and how to make it again.

    from robustgen.report.attack_page import attack_page, save_report

    save_report(directory, found.summary, found.samples, source)      # directory/report.html

Every number is a function of the stored summary and per-sample arrays. A summary that lacks a key gives a page that
lacks a paragraph.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustgen.data.source import DataSpec, Source
from robustgen.report.attack_outcome import classes, curve, falls_to_half, looks
from robustgen.report.attack_search import margins, norms, search
from robustgen.report.attack_words import (
    NONE,
    Summary,
    flat,
    interval,
    listed,
    mapping,
    number,
    plain,
    share,
    size,
    verdict,
)
from robustgen.report.examples import Examples, find_examples
from robustgen.report.page import Block, Kind, Notice, Number, Numbers, Page, Paragraph, Section, Table, render
from robustgen.report.tally import Samples, names_for

REPORT = "report.html"


def save_report(directory: Path, summary: Summary, samples: Samples, source: Source) -> Path:
    """Write `report.html` into a run's `directory`, with examples from its blocks or its finished archive."""
    path = directory / REPORT
    examples = find_examples(directory, samples, source)
    path.write_text(render(attack_page(summary, samples, source.spec, examples)), encoding="utf-8")
    return path


def attack_page(
    summary: Summary, samples: Samples, spec: DataSpec | None = None, examples: Examples | None = None
) -> Page:
    """The report as a page: of `evaluate_attack`'s summary and per-sample arrays, read back from disk or not.

    `spec`: of the data, for class names and whether values are pixels. `examples`: pictures to show.
    """
    image = spec is not None and spec.kind == "image"
    names = names_for(spec.classes if spec is not None else (), samples)
    sections = [
        Section("What it looks like", looks(summary, samples, names, examples)),
        Section("Accuracy as the attacker's reach grows", curve(summary)),
        Section("What the purifier is worth", _purifier(summary)),
        Section("Which classes fall", classes(samples, names)),
        Section("How the attack found them", search(summary, samples)),
        Section("How large the changes are", norms(summary, samples)),
        Section("How far the rest is from falling", margins(samples)),
        Section("Can the number be trusted?", _trust(summary)),
        Section("What was run", _setup(summary)),
    ]
    attack, data = summary.get("attack"), summary.get("data")
    versions = mapping(summary.get("versions"))
    return Page(
        title="How easily is it fooled?"
        + (f" {attack}" if attack else "")
        + (f" against a classifier of {data}" if attack and data else ""),
        lead=_lead(summary, image, aimed="target" in samples),
        sections=[section for section in sections if section.blocks],
        facts={
            name: text
            for name, text in (
                ("data", _hashed(data, summary.get("data_sha256"))),
                ("model", _hashed(summary.get("model"), summary.get("model_sha256"))),
                ("seed", plain(summary.get("seed"))),
                ("device", plain(summary.get("device"))),
                ("time", "" if number(summary.get("seconds")) is None else f"{summary['seconds']:.1f} s"),
                *((name, plain(version)) for name, version in sorted(versions.items()) if name != "robustgen"),
            )
            if text not in ("", NONE)
        },
        command=str(summary.get("command") or ""),
        version=str(versions.get("robustgen") or ""),
    )


def _hashed(name: Any, sha256: Any) -> str:
    return ", ".join(filter(None, (str(name or ""), f"SHA-256 {sha256}" if sha256 else "")))


def _lead(summary: Summary, image: bool, aimed: bool) -> list[Block]:
    clean, robust = number(summary.get("clean_accuracy")), number(summary.get("robust_accuracy"))
    kind: Kind = "warning"
    if clean is not None and robust is not None and robust < 0.5 * clean:
        kind = "bad"
    elif not summary.get("success_rate"):
        kind = "info"
    items = [
        Number(share(summary.get(key)), label, f"95 % interval {interval(summary.get(f'{key}_interval'))}")
        for key, label in (
            ("clean_accuracy", "accuracy on clean inputs"),
            ("robust_accuracy", "accuracy under attack (robust accuracy)"),
            ("success_rate", "of the attacked inputs were fooled"),
        )
        if number(summary.get(key)) is not None
    ]
    half = falls_to_half(summary)
    if half:
        items.append(Number(size(half), "eps at which half of the clean accuracy is gone", "from the curve below"))
    said = verdict(summary, image, aimed)
    blocks: list[Block] = [Notice(kind, said)] if said else []
    blocks += [Numbers(items)] if items else []
    blocks += [Notice("warning", str(text)) for text in summary.get("warnings") or []]
    return blocks


def _purifier(summary: Summary) -> list[Block]:
    """With and without the detector that rebuilds the inputs, before those who know it and those who do not."""
    purifier = mapping(summary.get("purifier"))
    if not purifier:
        return []
    name, bare = plain(purifier.get("detector")), mapping(purifier.get("oblivious"))
    blocks: list[Block] = [
        Paragraph(
            f"The classifier sees what {name} makes of an input. The attack above knows that and goes through both: a "
            "purifier that helps only against attacks that do not know it is no defence."
        )
    ]
    if bare:
        known = {"value": summary.get("robust_accuracy"), "interval": summary.get("robust_accuracy_interval")}
        rows = [
            ("the classifier alone", bare.get("clean"), bare.get("robust"), None),
            (f"behind {name}", bare.get("purified_clean"), bare.get("purified_robust"), known),
        ]
        blocks.append(
            Table(
                ("", "clean inputs", "attack on the classifier alone", "attack on both"),
                [(label, *(_estimate(mapping(value)) for value in values)) for label, *values in rows],
                caption="With the purifier and without",
                note="In brackets 95 % intervals.",
            )
        )
    return blocks


def _estimate(value: Mapping[str, Any]) -> str:
    if number(value.get("value")) is None:
        return NONE
    return f"{share(value['value'])} ({interval(value.get('interval', [value.get('low'), value.get('high')]))})"


def _trust(summary: Summary) -> list[Block]:
    blocks: list[Block] = []
    checks = listed(summary.get("diagnosis"))
    if checks:
        blocks.append(
            Table(
                ("check", "holds", "measured", "what a failure would mean", "what to do then"),
                [
                    (
                        str(check.get("name", "?")),
                        {True: "✓\N{NO-BREAK SPACE}yes", False: "✕\N{NO-BREAK SPACE}no"}.get(check.get("holds"), NONE),  # type: ignore[arg-type]
                        plain(check.get("measured")),
                        str(check.get("meaning") or NONE),
                        str(check.get("advice") or NONE),
                    )
                    for check in checks
                ],
                caption="Self-diagnosis: what must hold if the attack works as it should",
            )
        )
    blocks += _rounding(mapping(summary.get("quantise")))
    if number(summary.get("robust_accuracy")) is not None:
        blocks.append(
            Paragraph(
                "Robust accuracy under one attack is an upper bound: a stronger attack, more steps or more restarts "
                "can only lower it. It holds for this norm and this eps; the interval covers the choice of test "
                "inputs, not another training of the model."
            )
        )
    return blocks


def _rounding(quantise: Mapping[str, Any]) -> list[Block]:
    """Shares of the attacked inputs before and after rounding."""
    before, after = share(quantise.get("success_before")), share(quantise.get("success_after"))
    if NONE in (before, after):
        return []
    return [
        Table(
            ("adversarial inputs", "share of the attacked inputs that fool the model"),
            [("as computed, float32", before), (f"rounded to {plain(quantise.get('levels'))} levels", after)],
            caption="What rounding costs the attacker",
            note="An image file stores whole numbers: what does not survive the rounding fools the model only from "
            "inside the computer. All other numbers of this page are of the rounded inputs.",
        )
    ]


def _setup(summary: Summary) -> list[Block]:
    run = [
        (label, text)
        for label, text in (
            ("attack", plain(summary.get("attack"))),
            ("norm", plain(summary.get("norm"))),
            ("eps", size(summary.get("eps"))),
            ("model", plain(summary.get("model"))),
            ("data", plain(summary.get("data"))),
            ("split", plain(summary.get("split"))),
            ("inputs", plain(summary.get("n"))),
            ("inputs attacked", plain(summary.get("n_attacked"))),
            ("inputs left out as unreadable", str(len(mapping(summary.get("skipped"))) or NONE)),
        )
        if text != NONE
    ]
    blocks: list[Block] = [Table(("what", "value"), run, caption="The run")] if run else []
    options = flat(mapping(summary.get("configuration")))
    if options:
        blocks.append(Table(("option", "value"), options, caption="The attack's configuration"))
    return blocks

"""The report of an attack on a guard: how many inputs get through, how far they had to go, and by which attack."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.data.source import Source
from robustgen.report.attack_outcome import looks
from robustgen.report.curves import score_histograms
from robustgen.report.examples import Examples, find_examples
from robustgen.report.page import (
    Block,
    Kind,
    Mark,
    Marks,
    Notice,
    Number,
    Numbers,
    Page,
    Paragraph,
    Picture,
    Section,
    Table,
    render,
)
from robustgen.report.rankings import Reach, success_curves
from robustgen.report.tally import Samples, names_for

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT = "report.html"


def save_evasion_report(
    directory: Path,
    summary: Mapping[str, Any],
    command: str = "",
    samples: Samples | None = None,
    source: Source | None = None,
) -> Path:
    """Write `report.html` into a run's `directory`; `summary`: what `robustgen attack adaptive` has in its results;
    `samples`: its per-sample arrays, of whose inputs, found in `source` and `directory`, a few are shown.
    """
    path = directory / REPORT
    examples, names = None, []
    if samples is not None and source is not None:
        # what is accepted and wrong without any change is no attack's work
        samples = {**samples, "success": samples["lost"] & (samples["size"] > 0)}
        examples, names = find_examples(directory, samples, source), names_for(source.spec.classes, samples)
    path.write_text(render(evasion_page(summary, command, samples, examples, names)), encoding="utf-8")
    return path


def evasion_page(
    summary: Mapping[str, Any],
    command: str = "",
    samples: Samples | None = None,
    examples: Examples | None = None,
    names: Sequence[str] = (),
) -> Page:
    """The report as a page. `names`: of the classes, for `examples`."""
    shares: Mapping[str, Mapping[str, float]] = summary["shares"]
    size = f"{summary['norm']}, eps {summary['eps']:.4g}"
    lead = Numbers(
        [
            Number(f"{share['value']:.2%}", name, f"95 % interval {share['low']:.2%} to {share['high']:.2%}")
            for name, share in shares.items()
        ]
    )
    members = Table(
        ("attack", "inputs that it got through"),
        [(member["name"], str(member["lost"]) if member["tried"] else "not tried") for member in summary["members"]],
        caption="Which attack found them",
        note="The attacks run one after the other, each on the inputs that still hold: a later one with none may be no "
        "weaker. “clean” is the input as it is.",
    )
    pictures = looks(
        summary, _with_sizes(summary, samples), names, examples, "Inputs with a wrong label that is accepted"
    )
    sections = [
        Section("What it looks like", pictures),
        Section("What the detectors say", _scores(summary, samples)),
        Section("Success as the attacker's reach grows", _reach(summary)),
        Section("Attacks", [members]),
        Section("Can this be believed?", _believed(summary)),
    ]
    return Page(
        title=f"Who knows the detector: {summary['attack']} against {summary['guard']} on {summary['data']}",
        lead=[Paragraph(_words(summary, size)), lead],
        sections=[section for section in sections if section.blocks],
        facts={
            "data": str(summary["data"]),
            "guard": str(summary["guard"]),
            "allowed": size,
            "inputs": str(summary["n"]),
            "passes": f"{summary['forward_passes']} forward, {summary['backward_passes']} backward",
            "time": f"{summary['seconds']:.1f} s",
        },
        command=command,
    )


def evasion_curve(summary: Mapping[str, Any]) -> Figure:
    """Success against eps, of a run that looked for the smallest changes."""
    points: Sequence[Mapping[str, Any]] = summary["curve"]
    line = Reach(summary["guard"], [], [(p["eps"], p["success"]) for p in points])
    return success_curves([line], f"eps ({summary['norm']}: size of the change allowed)")


def _believed(summary: Mapping[str, Any]) -> list[Block]:
    """The masking checks, those that failed first."""
    checks: Sequence[Mapping[str, Any]] = summary.get("checks") or ()
    kinds: dict[bool | None, Kind] = {False: "bad", True: "good", None: "info"}
    order = sorted(checks, key=lambda check: (check["passed"] is not False, check["passed"] is None))
    marks = [Mark(kinds[check["passed"]], f"{check['name']}:", check["found"], check["means"]) for check in order]
    failed = any(check["passed"] is False for check in checks)
    notice = [Notice("bad", "A check failed: these figures say less than they seem to.")] if failed else []
    said = Paragraph(
        "A few inputs were attacked once more, to see whether the detector is hard to pass or only hard to attack. "
        "Each line says what was found, and what it would mean if it did not hold."
    )
    return [*notice, said, Marks(marks)] if marks else []


def _words(summary: Mapping[str, Any], size: str) -> str:
    said = (
        f"Classifier and detector of the guard were attacked together on {summary['n']} inputs, with changes up to "
        f"{size}. An attack succeeds where a wrong label is accepted; an input that is wrong and accepted as it is "
        "counts too."
    )
    if summary["surrogate"]:
        said += " The guard has no gradients: a network that has learnt its score from answers lent its own."
    left = summary.get("left_out")
    if left is not None:
        said += (
            f" {left} of them, whose label Auto-Attack on the classifier alone did not change, were left out and count "
            "as held: what gets past a guard needs a wrong label."
        )
    rounding: Mapping[str, float] | None = summary.get("quantise")
    if rounding is not None:
        said += (
            f" What they handed in was rounded to {rounding['levels']} levels, as an image file is, and judged after "
            f"that; before it was, {rounding['success_before']:.2%} got through."
        )
    return said


def _with_sizes(summary: Mapping[str, Any], samples: Samples | None) -> Samples:
    return {} if samples is None else {**samples, f"norm_{summary['norm']}": samples["size"]}


def _scores(summary: Mapping[str, Any], samples: Samples | None) -> list[Block]:
    """The guard's score of all inputs as they are, and of those whose label the attack made wrong, as it left them."""
    if samples is None or not math.isfinite(summary["threshold"]):
        return []
    fooled = samples["fooled"] & ~samples["clean_wrong"]
    groups = {"as they are": samples["clean_score"], "attacked, label wrong": samples["score"][fooled]}
    threshold, caught = summary["threshold"], int((fooled & ~samples["lost"]).sum())
    return [
        Picture(
            score_histograms(groups, threshold, fpr=summary["fpr"]),
            f"The guard's scores before and after the attack; of {int(fooled.sum())} labels that the attack made wrong "
            f"{caught} are rejected",
            f"The guard rejects what is above the threshold. The attack made {int(fooled.sum())} labels wrong, and of "
            f"these inputs {caught} are rejected in the form that came nearest to getting through.",
        )
    ]


def _reach(summary: Mapping[str, Any]) -> list[Block]:
    points: Sequence[Mapping[str, Any]] = summary["curve"]
    if len(points) < 2:
        return []
    rows = [
        (f"{p['eps']:.4g}", f"{p['success']:.2%}", f"{p['success_interval'][0]:.2%} to {p['success_interval'][1]:.2%}")
        for p in points
    ]
    first, last = points[0], points[-1]
    return [
        Paragraph(
            "The share of inputs for which a wrong label is accepted within each size, by the smallest change that was "
            "found for each. A stronger attack may find a smaller one: the true curve lies nowhere below this one."
        ),
        Picture(
            evasion_curve(summary),
            f"Success against eps: from {first['success']:.1%} at eps {first['eps']:.4g} to {last['success']:.1%} at "
            f"eps {last['eps']:.4g}",
        ),
        Table(("eps", "success", "95 % interval"), rows, caption="The curve in numbers"),
    ]

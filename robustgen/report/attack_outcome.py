"""What an attack did, as sections of its report: the curve, examples, classes. What was not stored gives no blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robustgen.report.attack_words import NONE, Summary, interval, listed, number, share, size, sizes_of
from robustgen.report.bars import class_bars, flow_map
from robustgen.report.canvas import percent
from robustgen.report.curves import security_curve
from robustgen.report.examples import Examples
from robustgen.report.page import Block, Paragraph, Picture, Table
from robustgen.report.strips import adversarial_strip
from robustgen.report.tally import Samples, confusions, fates

_CLASSES = 20  # shown in charts and tables; there may be a thousand
_PAIRS = 10
_POINTS = 16  # of a curve, in its table


def _points(summary: Summary) -> list[Mapping[str, Any]]:
    """The curve's points in rising order of eps, beginning where the attacker may do nothing."""
    points = [
        point
        for point in listed(summary.get("curve"))
        if number(point.get("eps")) is not None and number(point.get("robust_accuracy")) is not None
    ]
    clean = number(summary.get("clean_accuracy"))
    if points and clean is not None and all(point["eps"] > 0 for point in points):
        ends = summary.get("clean_accuracy_interval")
        points.append({"eps": 0.0, "robust_accuracy": clean, "robust_accuracy_interval": ends})
    return sorted(points, key=lambda point: float(point["eps"]))


def _to_the_end(points: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Without what follows once the curve no longer falls, which may reach far: the whole box, for some attacks."""
    last = points[-1]["robust_accuracy"]
    end = next(place for place, point in enumerate(points) if point["robust_accuracy"] == last)
    return points if points[-1]["eps"] <= 2 * points[end]["eps"] or end < 2 else points[: end + 1]


def falls_to_half(summary: Summary) -> float | None:
    """The smallest eps of the curve at which at most half of the clean accuracy is left."""
    clean, points = number(summary.get("clean_accuracy")), _points(summary)
    fallen = [float(point["eps"]) for point in points if clean and point["robust_accuracy"] <= 0.5 * clean]
    return fallen[0] if fallen and len(points) > 2 else None


def curve(summary: Summary) -> list[Block]:
    """Robust accuracy against eps, where the run has more than one point of it."""
    points = _points(summary)
    if len(listed(summary.get("curve"))) < 2 or len(points) < 2:
        return []
    every, points = len(points), _to_the_end(points)
    eps = [float(point["eps"]) for point in points]
    robust = [float(point["robust_accuracy"]) for point in points]
    ends = [point.get("robust_accuracy_interval") for point in points]
    bands = {}
    if all(interval(pair) != NONE for pair in ends):
        low, high = zip(*ends, strict=True)
        bands = {"band": (low, high)}
    label = f"{summary.get('attack') or 'the attack'}" + (", with 95 % interval" if bands else "")
    marked = number(summary.get("eps"))
    figure = security_curve(
        eps,
        {label: robust},
        {label: bands["band"]} if bands else None,
        eps_label=f"eps ({summary['norm']}: size of the change allowed)" if summary.get("norm") else "eps",
        mark=None if marked is None or not eps[0] <= marked <= eps[-1] else (marked, f"this run, eps {size(marked)}"),
    )
    half = falls_to_half(summary)
    said = "" if half is None else f" Half of the clean accuracy is gone at eps {size(half)}."
    texts = sizes_of(eps)
    spread = np.linspace(0, len(points) - 1, min(_POINTS, len(points)))
    shown = sorted({round(place) for place in spread} | {place for place, value in enumerate(eps) if value == half})
    return [
        Paragraph(
            "The further an attacker may go, the fewer inputs hold. A curve that falls steeply from the start is that "
            f"of a model without defence; one that stays up and never reaches zero calls for a stronger attack.{said}"
        ),
        Picture(
            figure,
            f"Robust accuracy against eps: from {share(robust[0])} at eps {size(eps[0])} to {share(robust[-1])} at eps "
            f"{size(eps[-1])}",
        ),
        Table(
            ("eps", "robust accuracy", "95 % interval"),
            [(texts[place], share(robust[place]), interval(ends[place])) for place in shown],
            caption="The curve in numbers",
            note="" if len(shown) == every else f"{len(shown)} of {every} points; all are in results.json.",
        ),
    ]


def looks(
    summary: Summary,
    samples: Samples,
    names: Sequence[str],
    examples: Examples | None,
    which: str = "Inputs that fooled the model",
) -> list[Block]:
    """A few inputs before and after, and what the model said. `which`: what makes them successes."""
    needed = ("y", "clean_prediction", "prediction")
    if examples is None or not len(examples.rows) or any(key not in samples for key in needed):
        return []
    rows, norm = examples.rows, summary.get("norm")
    changes = samples.get(f"norm_{norm}")
    figure = adversarial_strip(
        examples.clean,
        examples.adversarial,
        samples["y"][rows],
        samples["clean_prediction"][rows],
        samples["prediction"][rows],
        names=names,
        notes=None if changes is None else sizes_of(changes[rows].tolist()),
    )
    what = ", ".join(
        f"{names[int(samples['y'][row])]} taken for {names[int(samples['prediction'][row])]}" for row in rows
    )
    return [
        Picture(
            figure,
            f"{len(rows)} inputs before and after the attack, and the magnified difference: {what}",
            f"{which}: the first of each class, then the next ones. Above each column its true class, under each "
            "picture what the model said" + ("." if changes is None else f", under each difference its size ({norm})."),
        )
    ]


def classes(samples: Samples, names: Sequence[str]) -> list[Block]:
    """What became of each class, and what its fooled inputs were taken for."""
    rows, total = fates(samples, _CLASSES)
    if total < 2:
        return []
    labels = [names[row.label] for row in rows]
    cut = "" if total == len(rows) else f" The {len(rows)} least robust of {total} classes."
    worst, best = rows[0], rows[-1]
    pairs = confusions(samples)
    taken = {row.label: next((names[said] for true, said, _ in pairs if true == row.label), NONE) for row in rows}
    blocks: list[Block] = [
        Picture(
            class_bars(
                labels,
                [row.clean for row in rows],
                [row.robust.value for row in rows],
                ([row.robust.low for row in rows], [row.robust.high for row in rows]),
            ),
            f"Accuracy by class on clean inputs and under attack, from {labels[0]} ({percent(worst.robust.value)} "
            f"under attack) to {labels[-1]} ({percent(best.robust.value)})",
            f"The least robust class first.{cut}",
        ),
        Table(
            ("class", "inputs", "clean", "under attack", "95 % interval", "fooled", "mostly taken for"),
            [
                (
                    label,
                    f"{row.n:,}",
                    percent(row.clean),
                    percent(row.robust.value),
                    interval((row.robust.low, row.robust.high)),
                    f"{row.fooled:,}",
                    taken[row.label],
                )
                for label, row in zip(labels, rows, strict=True)
            ],
            caption="Accuracy by class",
            note=f"Fooled: how many inputs of the class the attack turned; taken for: what the model then said most "
            f"often.{cut}",
        ),
    ]
    return blocks + (_confusion(pairs, names) if pairs and "target" not in samples else [])


def _confusion(pairs: list[tuple[int, int, int]], names: Sequence[str]) -> list[Block]:
    used = sorted({label for true, said, _ in pairs for label in (true, said)})
    total = sum(count for _, _, count in pairs)
    top = ", ".join(f"{names[true]} as {names[said]} ({count})" for true, said, count in pairs[:3])
    blocks: list[Block] = []
    if 2 < len(used) <= _CLASSES:
        counts = np.zeros((len(used), len(used)))
        for true, said, count in pairs:
            counts[used.index(true), used.index(said)] = count
        blocks.append(
            Picture(
                flow_map(counts, [names[label] for label in used]),
                f"How often inputs of each class were taken for each other class; most often {top}",
                f"The {total:,} inputs that were fooled: true class (row) and what the model said (column).",
            )
        )
    blocks.append(
        Table(
            ("true class", "taken for", "inputs", "share of all fooled"),
            [(names[true], names[said], f"{count:,}", percent(count / total)) for true, said, count in pairs[:_PAIRS]],
            caption="Commonest confusions",
            note="" if len(pairs) <= _PAIRS else f"{_PAIRS} of {len(pairs)} pairs of classes.",
        )
    )
    return blocks

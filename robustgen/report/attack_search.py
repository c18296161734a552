"""How an attack did it, as sections of its report: steps, members, cost, sizes, margins. What was not stored gives no
blocks.
"""

from __future__ import annotations

import numpy as np

from robustgen.report.attack_words import NONE, Summary, black_box, listed, mapping, number, size, sizes_of
from robustgen.report.bars import count_bars, count_histogram
from robustgen.report.canvas import percent
from robustgen.report.page import Block, Paragraph, Picture, Table
from robustgen.report.tally import QUANTILES, Samples, fooled, sizes, survivors

_SPREAD = 0.02  # of the largest change: below it, all are of one size


def search(summary: Summary, samples: Samples) -> list[Block]:
    """When inputs fell, which member of the attack felled them, and what it cost."""
    blocks = _steps(summary, samples) + _members(summary)
    cost = [
        (label, total, f"{summary[key] / summary['n_attacked']:.1f}" if summary.get("n_attacked") else NONE)
        for key, label in (("forward_passes", "forward passes"), ("backward_passes", "backward passes"))
        if number(summary.get(key)) is not None and (total := f"{summary[key]:,}")
    ]
    seconds = number(summary.get("seconds"))
    if seconds is not None:
        cost.append(
            (
                "seconds",
                f"{seconds:.1f}",
                f"{seconds / summary['n_attacked']:.3g}" if summary.get("n_attacked") else NONE,
            )
        )
    if cost:
        blocks.append(
            Table(
                ("", "in all", "per attacked input"), cost, caption="What it cost",
                note="Passes of one input through the model; forward passes include the first look at every input.",
            )
        )  # fmt: skip
    return blocks


def _steps(summary: Summary, samples: Samples) -> list[Block]:
    first = np.asarray(samples.get("first_success", np.zeros(0)))
    fell = first[first >= 0]
    if not len(fell):
        return []
    step = "query" if black_box(summary) else "step"
    steps = "queries" if black_box(summary) else "steps"
    half, most = (int(np.quantile(fell, q, method="inverted_cdf")) for q in (0.5, 0.9))
    attacked = number(summary.get("n_attacked"))
    held = 0 if attacked is None else max(0, int(attacked) - len(fell))
    never = f" {held:,} of {attacked:,.0f} never fell." if held else ""
    blocks: list[Block] = [
        Paragraph(
            f"Half of the {len(fell):,} inputs that fell had done so by {step} {half:,}, nine in ten by {step} "
            f"{most:,}, the last at {step} {int(fell.max()):,}.{never}{_ceiling(summary, steps)}"
        ),
        Picture(
            count_histogram(fell, f"{steps} taken when an input first fooled the model", whole=True,
                            mark=(half, f"half of them by {step} {half:,}")),
            f"Histogram of the {step} at which inputs first fooled the model: half by {step} {half}, nine in ten by "
            f"{step} {most}, the last at {step} {int(fell.max())}",
        ),
    ]  # fmt: skip
    return blocks


def _ceiling(summary: Summary, steps: str) -> str:
    """What letting go of fallen inputs can save at most."""
    mean, ceiling = number(summary.get("first_success_mean")), number(summary.get("ceiling"))
    if mean is None or mapping(summary.get("configuration")).get("mode") == "minimal":  # which always goes on
        return ""
    of = "" if number(summary.get("steps")) is None else f" of {summary['steps']:,}"
    said = (
        f" On average an attacked input had to be followed for {mean:.1f}{of} {steps}, those that never fell to the end"
    )
    if ceiling is None:
        return f"{said}."
    return (
        f"{said}: an attack that lets go of inputs once they have fallen can be at most {ceiling:.1f} times as fast as "
        "one that does not."
    )


def _members(summary: Summary) -> list[Block]:
    members = [member for member in listed(summary.get("members")) if number(member.get("fooled")) is not None]
    if len(members) < 2:
        return []
    names, counts = [str(member.get("name", "?")) for member in members], [int(member["fooled"]) for member in members]
    total = sum(counts)
    told = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
    return [
        Picture(
            count_bars(names, counts, "inputs fooled"),
            f"How many inputs each member of the attack fooled: {told}",
            "Members run in this order and see only what those before them left: a count says what a member adds, not "
            "how strong it is.",
        ),
        Table(
            ("member", "fooled", "share of all fooled"),
            [
                (name, f"{count:,}", percent(count / total) if total else NONE)
                for name, count in zip(names, counts, strict=True)
            ],
            caption="What each member of the attack added",
        ),
    ]


def norms(summary: Summary, samples: Samples) -> list[Block]:
    """The sizes of the changes that fooled the model, in every norm that was stored."""
    rows = fooled(samples)
    stored = [key.removeprefix("norm_") for key in samples if key.startswith("norm_")]
    cells = []
    for norm in stored:
        found = sizes(samples[f"norm_{norm}"][rows])
        if found is not None:
            cells.append((norm, *sizes_of((*found.quantiles, found.largest))))
    if not cells:  # the summary alone knows less
        kept = mapping(summary.get("norms"))
        cells = [
            (str(norm), NONE, size(mapping(known).get("median")), NONE, size(mapping(known).get("max")))
            for norm, known in kept.items()
            if known
        ]
    if not cells:
        return []
    blocks: list[Block] = []
    own = summary.get("norm")
    values = samples[f"norm_{own}"][rows] if own in stored else np.zeros(0)
    found = sizes(values)
    if found is not None and found.largest - found.quantiles[0] > _SPREAD * found.largest:
        middle = found.quantiles[1]
        blocks.append(
            Picture(
                count_histogram(
                    values,
                    f"{own} of the change that fooled the model",
                    mark=(middle, f"median {size(middle)}"),
                    whole=own == "l0",
                ),
                f"Histogram of the {own} norm of the changes that fooled the model: median {size(middle)}, largest "
                f"{size(found.largest)}",
            )
        )  # fmt: skip
    blocks.append(
        Table(
            ("norm", *(f"{100 * q:g} % are below" if q != 0.5 else "median" for q in QUANTILES), "largest"),
            cells,
            caption="Size of the changes that fooled the model",
            note="linf: the largest change of a value; l2: Euclidean; l1: the sum of all changes; l0: how many values "
            "changed. In input units.",
        )
    )
    return blocks


def margins(samples: Samples) -> list[Block]:
    """How far the survivors are from falling, by the margin of the true class; a target has another one."""
    rows = survivors(samples)
    if "margin" not in samples or "target" in samples or not len(rows):
        return []
    distance = -np.asarray(samples["margin"], dtype=np.float64)[rows]
    distance = distance[np.isfinite(distance)]
    found = sizes(distance)
    if found is None:
        return []
    low, middle, high = found.quantiles
    return [
        Paragraph(
            f"For the {found.n:,} inputs that held: by how much, in logits, the true class was still ahead of the next "
            "one at the attack's best attempt. Values near zero were close calls, which a stronger attack or a "
            "slightly larger eps takes."
        ),
        Picture(
            count_histogram(distance, "lead of the true class (difference of logits)",
                            mark=(middle, f"median {size(middle)}")),
            f"Histogram of the margins of the {found.n} inputs that held: a tenth below {size(low)}, median "
            f"{size(middle)}, largest {size(found.largest)}",
        ),
        Table(
            ("inputs that held", *(f"{100 * q:g} % are below" if q != 0.5 else "median" for q in QUANTILES), "largest"),
            [(f"{found.n:,}", size(low), size(middle), size(high), size(found.largest))],
            caption="Margins in numbers",
        ),
    ]  # fmt: skip

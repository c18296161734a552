"""The report of an attack on a guard: how many inputs get through, how far they had to go, and by which attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustgen.report.page import Block, Number, Numbers, Page, Paragraph, Picture, Section, Table, render
from robustgen.report.rankings import Reach, success_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT = "report.html"


def save_evasion_report(directory: Path, summary: Mapping[str, Any], command: str = "") -> Path:
    """Write `report.html` into a run's `directory`; `summary`: what `robustgen attack adaptive` has in its results."""
    path = directory / REPORT
    path.write_text(render(evasion_page(summary, command)), encoding="utf-8")
    return path


def evasion_page(summary: Mapping[str, Any], command: str = "") -> Page:
    """The report as a page."""
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
        [(member["name"], str(member["lost"])) for member in summary["members"]],
        caption="Which attack found them",
        note="The attacks run one after the other, each on the inputs that still hold: a later one with none may be no "
        "weaker. “clean” is the input as it is.",
    )
    sections = [Section("Success as the attacker's reach grows", _reach(summary)), Section("Attacks", [members])]
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
    line = Reach(summary["guard"], [p["eps"] for p in points], None, [p["success"] for p in points])
    return success_curves([line], f"eps ({summary['norm']}: size of the change allowed)")


def _words(summary: Mapping[str, Any], size: str) -> str:
    said = (
        f"Classifier and detector of the guard were attacked together on {summary['n']} inputs, with changes up to "
        f"{size}. An attack succeeds where a wrong label is accepted; an input that is wrong and accepted as it is "
        "counts too."
    )
    if summary["surrogate"]:
        said += " The guard has no gradients: a network that has learnt its score from answers lent its own."
    return said


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

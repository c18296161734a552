"""What `robustgen attack` prints of its summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robustgen_cli.purify import oblivious_rows

if TYPE_CHECKING:
    from robustgen.evaluation.robustness import Robustness


def _percent(value: float, interval: list[float]) -> tuple[str, str]:
    return f"{value:.2%}", f"{interval[0]:.2%} to {interval[1]:.2%}"


def curve(points: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Robust accuracy at each size, with its interval."""
    return [
        (f"{point['eps']:.4g}", *_percent(point["robust_accuracy"], point["robust_accuracy_interval"]))
        for point in points
    ]


def rows(found: Robustness, summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The figures of a run, each with its interval or a word on it."""

    def share(label: str, estimate: Any) -> tuple[str, str, str]:
        return (
            (label, "-", "-") if estimate is None else (label, *_percent(estimate.value, [estimate.low, estimate.high]))
        )

    norms = [
        (f"median {norm} of successes", f"{size['median']:.4g}", f"largest {size['max']:.4g}")
        for norm, size in summary["norms"].items()
        if size and (norm != "l0" or summary["norm"] == "l0")
    ]
    members = [(f"fooled by {member['name']}", str(member["fooled"]), "") for member in summary["members"]]
    return [
        share("clean accuracy", found.clean_accuracy),
        share("robust accuracy", found.robust_accuracy),
        share("attack success rate", found.success_rate),
        *oblivious_rows((summary["purifier"] or {}).get("oblivious")),
        *_rounding(summary["quantise"]),
        *(members if len(members) > 1 else []),
        *norms,
        *_steps(summary),
        ("forward / backward passes", f"{summary['forward_passes']} / {summary['backward_passes']}", ""),
        ("seconds", f"{summary['seconds']:.1f}", ""),
        _diagnosis(summary["diagnosis"], len(summary["warnings"])),
    ]


def _rounding(quantise: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    if quantise is None:
        return []
    return [("before rounding to 256 levels", f"{quantise['success_before']:.2%}", "success rate")]


def _steps(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """When the inputs fell, and how much faster an attack can be for leaving them out."""
    if summary["ceiling"] is None or summary["steps"] < 2:
        return []
    mean = f"{summary['first_success_mean']:.1f} of {summary['steps']}"
    return [("mean first-success step", mean, f"ceiling {summary['ceiling']:.1f}x")]


def _diagnosis(findings: list[dict[str, Any]], warnings: int) -> tuple[str, str, str]:
    """What the run's own checks found, and how much else there is to be told, which --quiet leaves out."""
    failed = sum(not finding["holds"] for finding in findings)
    count = f"{len(findings)} checks"
    text = f"{failed} of {count} failed" if failed else f"ok: {count}"
    return ("diagnosis", text, f"{warnings} warnings" if warnings > 1 else "1 warning" if warnings else "")

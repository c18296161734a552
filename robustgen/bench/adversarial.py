"""The leaderboard of guards: ranked by the attacker who does best, knowing the detector or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from robustgen.bench.figures import Figure, figure_of, over_seeds
from robustgen.bench.ranking import Board, Done, Row, grouped
from robustgen.bench.suite import Board as Headline
from robustgen.evaluation.guarded_system import sentence
from robustgen.evaluation.tramer import Known, as_check, best_of, in_words, of_figures, published, verdict

FIGURES = (
    *("success_worst", "success_oblivious", "success_adaptive", "robust_accuracy", "fc"),
    *("useful", "accuracy", "false_alarms", "false_rejects_right", "false_rejects_wrong"),
    *("certified", "worst_auroc", "worst_tpr_at_5", "noise_flagged", "checks_failed", "ms_per_input", "fit_seconds"),
)
"""All metrics of a row."""

SHOWN = (
    "success_worst",
    "success_oblivious",
    "success_adaptive",
    "robust_accuracy",
    "fc",
    "useful",
    "false_alarms",
    "worst_auroc",
    "noise_flagged",
    "checks_failed",
    "ms_per_input",
)
NOISE = ("sign", 0.05)  # the control that all are compared by
_NOTE = (
    "Ranked by success of the worst case at {norm} eps {eps:g}: the share of attacked inputs that end with a wrong "
    "label and accepted, by any attack of any threat model. A detector that nobody who knows it has attacked is "
    "unverified, and stands below those that were."
)


def boards(cells: Sequence[Done], headline: Headline) -> list[Board]:
    """One board for each set of data and victim."""
    found = []
    known = {
        data: _known(part, headline) for data, part in grouped(cells, lambda cell: str(cell[0].axes["data"])).items()
    }
    for title, own in grouped(cells, _setting).items():
        bound = known[str(own[0][0].axes["data"])]
        rows = [_row(name, part, headline, bound) for name, part in grouped(own, _competitor).items()]
        rows.sort(key=_rank)
        first = own[0][0].axes
        about = {"data": first["data"], "victim": first["victim"], "norm": headline.norm, "eps": headline.eps}
        about |= {"reference": headline.reference, "reference_victim": headline.victim}
        note = _NOTE.format(norm=headline.norm, eps=headline.eps)
        found.append(Board(title, "adversarial", rows, SHOWN, note=note, detail=about))
    return found


def _setting(cell: Done) -> str:
    axes = cell[0].axes
    return f"{axes['data']}, classifier trained {axes['victim']}"


def _competitor(cell: Done) -> str:
    axes = cell[0].axes
    rate = f" at {100 * float(axes['fpr']):g} %" if "fpr" in axes else ""
    return f"{axes['detector']}{rate}"


def _rank(row: Row) -> tuple[float, ...]:
    worst, useful = row.figures["success_worst"], row.figures["useful"]
    missing = worst is None
    elsewhere = row.figures["success_adaptive"] is None
    return (
        missing,
        row.unverified,
        elsewhere,
        2.0 if worst is None else worst.value,
        0.0 if useful is None else -useful.value,
    )


def _known(cells: Sequence[Done], headline: Headline) -> Known | None:
    """The best robust accuracy at half the headline's size that is known on one set of data: what was published, or of
    the classifiers of this suite, each by its mean over seeds. As long as none that was trained against attacks is
    measured, these are only all that is known.
    """
    half, first = headline.eps / 2, cells[0][0].cell
    victims = {
        name: (
            _mean_of([of_figures(stored.metrics, headline.norm, half) for _, stored in own if stored is not None]),
            own,
        )
        for name, own in grouped(cells, lambda cell: str(cell[0].axes["victim"])).items()
    }
    hard = any(
        value is not None and getattr(getattr(own[0][0].cell, "victim", None), "adversarial", None)
        for value, own in victims.values()
    )
    measured = {name: value for name, (value, _) in victims.items() if value is not None}
    among = "the only one measured here" if len(measured) == 1 else f"the best of the {len(measured)} measured here"
    ours = [Known(value, f"the classifier trained {name}, {among}", judges=hard) for name, value in measured.items()]
    return best_of([published(str(getattr(first, "data", "")), headline.norm, half), *ours])


def _mean_of(found: Sequence[float | None]) -> float | None:
    there = [value for value in found if value is not None]
    return sum(there) / len(there) if there else None


def _row(name: str, cells: Sequence[Done], headline: Headline, known: Known | None) -> Row:
    found = [stored.metrics for _, stored in cells if stored is not None]
    if not found:
        return Row(name, dict.fromkeys(FIGURES), 0, len(cells), unverified=True)
    clean = merged([metrics["clean"] for metrics in found])
    rows = merged_rows([metrics["rows"] for metrics in found], ("threat", "attack", "norm", "eps"))
    systems = merged_rows([metrics["systems"] for metrics in found], ("norm", "eps"))
    noise = merged_rows([metrics.get("noise", []) for metrics in found], ("kind", "eps"))
    certified = merged([metrics.get("certified") for metrics in found])
    checks = _checks([metrics.get("checks", []) for metrics in found])
    at = next((s for s in systems if s["norm"] == headline.norm and math.isclose(s["eps"], headline.eps)), {})
    if at.get("fc") is not None:
        given = getattr(cells[0][0].cell, "bound", None)
        bound = known if given is None else Known(given, "the classifier given")
        at["tramer"] = (at.get("tramer") or {}) | verdict(at["fc"], bound)
        checks += as_check(at)
    blind = [row for row in rows if row["threat"] == "Z"]
    aurocs = [figure for row in blind if (figure := figure_of(row.get("auroc"))) is not None]
    caught = [figure for row in blind if (figure := figure_of((row.get("tpr") or {}).get("0.05"))) is not None]
    control = next((row for row in noise if row["kind"] == NOISE[0] and math.isclose(row["eps"], NOISE[1])), None)
    control = control or next(iter(noise), None)
    figures = {
        **{word: figure_of(at.get(word)) for word in ("success_worst", "success_oblivious", "success_adaptive")},
        **{word: figure_of(at.get(word)) for word in ("robust_accuracy", "fc")},
        **{
            word: figure_of(clean.get(word))
            for word in ("useful", "accuracy", "false_alarms", "false_rejects_right", "false_rejects_wrong")
        },
        "certified": figure_of((certified or {}).get("certified_robust_accuracy")),
        "worst_auroc": min(aurocs, key=lambda figure: figure.value, default=None),
        "worst_tpr_at_5": min(caught, key=lambda figure: figure.value, default=None),
        "noise_flagged": None if control is None else figure_of(control.get("flagged")),
        "checks_failed": Figure(float(sum(check["passed"] is False for check in checks))) if checks else None,
        "ms_per_input": figure_of(clean.get("ms_per_input")),
        "fit_seconds": figure_of(clean.get("fit_seconds")),
    }
    detail = {
        "clean": clean,
        "rows": rows,
        "systems": systems,
        "noise": noise,
        "checks": checks,
        "certified": certified,
    }
    axes = cells[0][0].axes
    whom = f"{name} on {axes['data']}, beside a classifier trained {axes['victim']}"
    knowing = [row for row in rows if row["threat"] == "W"]
    if len(found) == 1 and "attacks" in at and (at["success_adaptive"] is not None or not knowing):
        said = f"{whom}: {sentence(at, found[0]['fpr'])}"
    else:
        said = _sentence(whom, figures, headline, len(found), knowing) + in_words(at)
    if any(row.get("surrogate") for row in knowing):
        said += "; who knows the detector attacked through a stand-in for the gradient, so that more may succeed"
    detail |= {"sentence": said, "fpr": found[0]["fpr"], "seeds": len(found)}
    return Row(name, figures, len(found), len(cells), not knowing, detail)


def _sentence(
    whom: str,
    figures: Mapping[str, Figure | None],
    headline: Headline,
    seeds: int,
    knowing: Sequence[Mapping[str, Any]],
) -> str:
    """What a reader may quote of several seeds. `knowing`: the attacks of those who know the detector."""

    def share(word: str) -> str:
        figure = figures[word]
        if figure is None:
            return "an unknown share"
        ends = (
            "" if figure.low is None or figure.high is None else f" [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"
        )
        return f"{100 * figure.value:.1f} %{ends}"

    tried = ", ".join(dict.fromkeys(f"{row['norm']} {row['eps']:g}" for row in knowing))
    if figures["success_adaptive"] is not None:
        said = f"an attacker who knows it gets a wrong label accepted for {share('success_adaptive')}"
    elif tried:
        said = f"who knows it has attacked it at other sizes alone ({tried})"
    else:
        said = "nobody who knows it has attacked it, so nothing is known of its security"
    return (
        f"{whom}, at {share('false_alarms')} false alarms, {headline.norm} eps {headline.eps:g}, mean of {seeds} "
        f"{'seed' if seeds == 1 else 'seeds'}: {said}; one who does not know it for {share('success_oblivious')} of "
        f"inputs. {share('useful')} of clean inputs are classified rightly and accepted"
    )


def merged(found: Sequence[Any]) -> Any:
    """One of the values of several seeds: estimates by `over_seeds`, numbers by their mean (counts rounded), truths by
    all, words by the first.
    """
    there = [value for value in found if value is not None]
    if not there:
        return None
    first = there[0]
    if isinstance(first, Mapping) and "value" in first:
        figure = over_seeds([figure_of(value) for value in there])
        counts = [value["n"] for value in there if "n" in value]
        return None if figure is None else figure.to_json() | ({"n": counts[0]} if counts else {})
    if isinstance(first, Mapping):
        names = list(dict.fromkeys(name for value in there for name in value))
        return {name: merged([value.get(name) for value in there]) for name in names}
    if isinstance(first, bool):
        return all(there)
    if all(isinstance(value, int) for value in there):
        return round(sum(there) / len(there))
    if isinstance(first, int | float):
        return sum(there) / len(there)
    return first


def merged_rows(found: Sequence[Sequence[Mapping[str, Any]]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of several seeds, those that agree in `names` made one."""
    by_name: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for rows in found:
        for row in rows:
            by_name.setdefault(tuple(row[name] for name in names), []).append(row)
    return [dict(merged(rows)) | dict(zip(names, key, strict=True)) for key, rows in by_name.items()]


def _checks(found: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Checks of several seeds: passed if all seeds passed, failed if any failed, with what the worst of them found."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for checks in found:
        for check in checks:
            by_name.setdefault(check["name"], []).append(check)
    order = {False: 0, None: 1, True: 2}
    return [dict(min(checks, key=lambda check: order[check["passed"]])) for checks in by_name.values()]

from __future__ import annotations

from typing import Any

from robustgen_benchmarks.by_seed import BLIND, blind, knowing


def _value(number: float) -> dict[str, float]:
    return {"value": number}


def _cell(number: float) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [
        {"threat": "W", "attack": "adaptive-standard", "eps": 0.05, "success": _value(number)},
        {"threat": "W", "attack": "adaptive-standard", "eps": 0.1, "success": _value(2 * number)},
        {"threat": "Q", "attack": "square", "eps": 0.1, "success": _value(0.875)},
    ]
    for place, (attack, eps) in enumerate(BLIND.values()):
        row = {"threat": "Z", "attack": attack, "eps": eps or 1.4}
        rows.append(row | {"auroc": _value(number), "tpr": {"0.05": _value(place / 10)}})
    systems = [
        {"norm": "linf", "eps": 0.05, "robust_accuracy": _value(0.0)},
        {"norm": "linf", "eps": 0.1, "robust_accuracy": _value(0.625)},
    ]
    return {"rows": rows, "systems": systems, "clean": {"useful": _value(0.75)}}


def _rows(lines: list[str]) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


CELLS = {("plain", "gat", 0): _cell(0.125), ("plain", "gat", 1): _cell(0.25), ("plain", "pca", 0): _cell(0.5)}


def test_each_seed_has_its_row() -> None:
    first, second = _rows(knowing(CELLS, ["gat"]))[2:]
    assert first == ["plain", "gat", "0", "0.125 / - / -", "0.250 / - / 0.875", "- / -", "0.625", "0.750"]
    assert second[2:4] == ["1", "0.250 / - / -"]


def test_the_mean_is_that_of_the_seeds() -> None:
    rows = {row[0]: row[1:] for row in _rows(blind(CELLS, "plain", "gat"))[2:]}
    assert set(rows["AUROC, seed 0"]) == {"0.125"}
    assert set(rows["AUROC, mean"]) == {"0.188"}
    assert rows["caught at 5 %, mean"][:3] == ["0.000", "0.100", "0.200"]
    assert not any("mean" in row[0] for row in _rows(blind(CELLS, "plain", "pca")))

from __future__ import annotations

from typing import Any

from robustgen_benchmarks.board_tables import tables


def _row(name: str) -> dict[str, Any]:
    metrics = {word: {"value": 0.25} for word in ("success_oblivious", "success_adaptive", "robust_accuracy", "useful")}
    attacked = [
        {"threat": "Z", "attack": "pgd", "eps": 0.05, "auroc": {"value": 0.1}},
        {"threat": "Z", "attack": "pgd", "eps": 0.1, "auroc": {"value": 0.9}},
        {"threat": "Z", "attack": "ddn", "eps": 28.0, "auroc": {"value": 0.8}},
        {"threat": "Q", "attack": "square", "eps": 0.1, "success": {"value": 0.125}},
    ]
    checks = [{"name": "steady-score", "passed": True}, {"name": "enough-steps", "passed": False}]
    detail = {"rows": attacked, "checks": checks}
    return {"name": name, "cells_done": 3, "metrics": metrics | {"noise_flagged": None}, "detail": detail}


def test_each_figure_stands_in_its_column() -> None:
    board = {"title": "one", "detail": {"victim": "plain"}, "rows": [_row("gat"), _row("pca")]}
    ((title, lines),) = tables({"boards": [board]})
    assert title == "one"
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    assert len({len(row) for row in rows[2:]}) == 1
    found = dict(zip(["name", *(cell.strip() for cell in lines[0].split("|")[2:-1])], rows[2], strict=True))
    assert (found["name"], found["seeds"]) == ("gat", "3")
    assert found["**knowing it**"] == "**0.250**"
    assert (found["by verdicts alone"], found["all but its weights"]) == ("0.125", "-")
    assert (found["prototype"], rows[3][7]) == ("0.44", "-")
    assert "0.900 / - / 0.800 / -" in lines[2]
    assert found["checks failed"] == "enough-steps"
    robust = {"title": "two", "detail": {"victim": "adversarial"}, "rows": [_row("gat")]}
    ((_, lines),) = tables({"boards": [robust]})
    assert "prototype" not in lines[0]

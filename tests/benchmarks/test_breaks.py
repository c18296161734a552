from __future__ import annotations

from robustgen_benchmarks import breaks


def _row(name: str, knowing: float | None) -> dict[str, object]:
    figure = None if knowing is None else {"value": knowing, "low": knowing - 0.1, "high": knowing + 0.1}
    return {"name": name, "metrics": {"success_adaptive": figure, "success_oblivious": {"value": 0.5}}}


def test_the_best_broken_come_first_and_the_target_is_asked_of_those_not_trained_against_attacks() -> None:
    board = {"rows": [_row("gat", 0.3), _row("magnet", 0.949), _row("pca", 0.95), _row("unknown", None)]}
    lines = breaks.rows(board, ("gat",))
    assert [line.split(" | ")[0].strip("| ") for line in lines] == ["pca", "magnet", "gat"]
    assert ["**no**" in line for line in lines] == [False, True, False]
    assert [" yes " in line for line in lines] == [True, False, False]
    assert "0.949 [0.849, 1.049] | **no** | 0.94 | about 1" in lines[1]

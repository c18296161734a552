"""Seconds are counted over all the runs that work took."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustgen.artifacts import to_json
from robustgen.bench import clock
from robustgen.bench.clock import Clock, Spent


def test_time_before_a_kill_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0, 7.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(clock.time, "process_time", lambda: now[1])
    first = Clock(tmp_path / "clock.json")
    now[:] = 130.0, 17.0
    first.tick()
    now[:] = 131.0, 18.0  # is lost: the note is a second old when the run is killed
    first.tick()
    now[:] = 1000.0, 0.0  # another process
    second = Clock(tmp_path / "clock.json")
    now[:] = 1002.0, 1.5
    assert second.stop() == Spent(32.0, 11.5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "[]", "{}", to_json({"seconds": "long", "cpu_seconds": 1.0})])
def test_a_spoilt_note_counts_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "clock.json").write_text(text, encoding="utf-8")
    assert Clock(tmp_path / "clock.json").stop().seconds < 60

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustgen.attacks.auto_attack import AutoAttack
from robustgen.evaluation.bundles import BUNDLES

SLOW = Path(__file__).with_name("slow.txt")
"""The tests that are marked slow because they were, one a line: `make slow` measures them again."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--list-slow", type=float, metavar="SECONDS", help=f"note in {SLOW.name} what takes longer")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    listed = set(SLOW.read_text(encoding="utf-8").splitlines())
    for item in items:
        if item.nodeid in listed:
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    most = config.getoption("--list-slow")
    if most is None:
        return
    took = Counter[str]()
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports(""):
        took[report.nodeid] += report.duration
    listed = set(SLOW.read_text(encoding="utf-8").splitlines()) - took.keys()  # what was not run stays as it is
    listed |= {name for name, seconds in took.items() if seconds > most}
    SLOW.write_text("".join(f"{name}\n" for name in sorted(listed)), encoding="utf-8")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a test converts or downloads lands in the user's cache."""
    monkeypatch.setenv("ROBUSTGEN_DATA", str(tmp_path_factory.getbasetemp() / "robustgen-data"))


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """`adaptive-standard` with a tenth of its steps and queries and `auto-attack` without its last two members, where
    what is said of an attack is looked at and not what it finds.
    """
    whole = BUNDLES["adaptive-standard"]
    names = ("steps", "target_steps", "object_steps", "match_steps", "queries", "misled_queries")
    shorter = {name: getattr(whole, name) // 10 for name in names} | {"carlini_steps": 50}
    monkeypatch.setitem(BUNDLES, "adaptive-standard", replace(whole, **shorter))
    every = vars(AutoAttack)["attacks"].fget
    monkeypatch.setattr(AutoAttack, "attacks", property(lambda attack: every(attack)[:2]))

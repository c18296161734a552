from __future__ import annotations

import pytest
import torch


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a test converts or downloads lands in the user's cache."""
    monkeypatch.setenv("ROBUSTGEN_DATA", str(tmp_path_factory.getbasetemp() / "robustgen-data"))

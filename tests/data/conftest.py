"""Every test has a data folder of its own, and nothing is downloaded."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import NoReturn

import pytest
import torchvision


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data-folder"
    monkeypatch.setenv("ROBUSTGEN_DATA", str(folder))
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(url: str, *_: object) -> NoReturn:
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", no_network)

"""A small world of real files, and the command line run on it within this process."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robustgen_cli.main import main

MODELS = '''
import warnings
import torch
from torch import nn
from sibling import BIAS

class Net(nn.Module):
    """Says 1 where the mean of the 36 pixels is above 16/36."""
    def __init__(self, after=lambda z: z, classes=2):
        super().__init__()
        self.layer, self.after = nn.Linear(36, classes), after
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([-1.0, 1.0] + [0.0] * (classes - 2))[:, None].expand(classes, 36))
            self.layer.bias.copy_(torch.tensor([BIAS, -BIAS] + [-100.0] * (classes - 2)))
    def forward(self, x):
        return self.after(self.layer(x.flatten(1)))

def fail(z): raise LookupError("no such layer")
def net(): return Net()
def softmax(): return Net(lambda z: z.softmax(1))
def random(): return Net(lambda z: z + torch.rand_like(z))
def detached(): return Net(lambda z: z.detach())
def rounded(): return Net(lambda z: z.round())
def nan(): return Net(lambda z: z * float("nan"))
def one_output(): return Net(lambda z: z[:, :1])
def ten_outputs(): return Net(classes=10)
def three_outputs(): return Net(classes=3)
def pair(): return Net(lambda z: (z, z))
def fails_inside(): return Net(fail)
def raises(): raise RuntimeError("boom\\nand more")
def ends(): raise SystemExit(0)
def number(): return 5
def needs(argument): return Net()
def talks():
    print("hello from the model")
    return Net(lambda z: print("and again") or z)
def warns():
    warnings.simplefilter("always")
    warnings.warn("this model is old")
    return Net()
'''


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout, which must be exactly one JSON value."""
        return json.loads(self.out)


def ended(args: tuple[object, ...]) -> int:
    """The exit code of the command line with these arguments, run here."""
    before = sys.argv
    sys.argv = ["robustgen", *map(str, args)]
    try:
        with pytest.raises(SystemExit) as end:
            main()
    finally:
        sys.argv = before
    return 0 if end.value.code is None else int(str(end.value.code))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Ran]:
    """`run(*args)`: the command, in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")

    def call(*args: object) -> Ran:
        capsys.readouterr()
        code = ended(args)
        return Ran(code, *capsys.readouterr())

    return call


@pytest.fixture
def refused(run: Callable[..., Ran], tmp_path: Path) -> Callable[..., str]:
    """`refused(*args, code=2)`: it must end with that code and one line on stderr, and leave nothing; the line."""

    def call(*args: object, code: int = 2) -> str:
        before = sorted(tmp_path.rglob("*"))
        ran = run(*args)
        assert (ran.code, ran.out) == (code, ""), ran
        assert ran.err.startswith("robustgen: "), ran.err
        assert ran.err.count("\n") == 1, ran.err
        assert ran.err.endswith("\n")
        assert "fault in robustgen" not in ran.err
        assert sorted(tmp_path.rglob("*")) == before
        return ran.err

    return call


@pytest.fixture
def misused(run: Callable[..., Ran]) -> Callable[..., str]:
    """`misused(*args)`: what Typer itself refuses, in its own form, with exit code 2; what it says."""

    def call(*args: object) -> str:
        ran = run(*args)
        assert (ran.code, ran.out) == (2, ""), ran
        assert "Traceback" not in ran.err
        return " ".join(ran.err.replace("│", " ").split())

    return call


def write_arrays(root: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(2), 100)
    x = (rng.random((200, 1, 6, 6)) * 0.3 + y[:, None, None, None] * 0.6).astype(np.float32)
    hole = x.copy()
    hole[7, 0, 3, 3] = np.nan
    endless = x.copy()
    endless[7, 0, 3, 3] = np.inf
    arrays: dict[str, dict[str, Any]] = {
        "two": {"x": x, "y": y},
        "nan": {"x": hole, "y": y},
        "inf": {"x": endless, "y": y},
        "one-class": {"x": x, "y": np.zeros(200, int)},
        "sorted": {"x": x[np.argsort(y, kind="stable")], "y": np.sort(y) * 4},
        "no-labels": {"x": x},
        "texts": {"x": x.astype(str), "y": y},
        "objects": {"x": np.array([None] * 3), "y": y[:3]},
        "other-keys": {"a": x, "b": y},
        "half-labels": {"x": x, "y": y + 0.5},
        "to-255": {"x": x * 255, "y": y},
        "colour": {"x": np.repeat(x, 3, 1), "y": y},
        "short-labels": {"x": x, "y": y[:10]},
        "few": {"x": x[:12], "y": y[:12]},
    }
    for name, members in arrays.items():
        np.savez(root / f"{name}.npz", **members)
    np.save(root / "bare.npy", x)


def write_table(root: Path) -> None:
    rng = np.random.default_rng(1)
    lines = ["age,size,weight,label"]
    for row in range(200):
        age, size, weight = rng.random(3) + row % 2
        lines.append(f"{20 + 30 * age},{size},{5 * weight},{'ill' if row % 2 else 'well'}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")


def write_photos(root: Path) -> None:
    """Two classes whose names mean something to a spreadsheet and to a terminal, and two files that are damaged."""
    rng = np.random.default_rng(2)
    for number, name in enumerate(("=cmd", "[red]cat")):
        folder = root / "photos" / name
        folder.mkdir(parents=True)
        for i in range(80):
            pixels = (rng.random((8, 8, 3)) * 80 + 150 * number).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:02}.png")
    (root / "photos" / "=cmd" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    whole = (root / "photos" / "=cmd" / "01.png").read_bytes()
    (root / "photos" / "[red]cat" / "short.png").write_bytes(whole[:80])


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data files, a file of models, and the artifacts `victim`, `detector` and the results `results`."""
    root = tmp_path_factory.mktemp("world")
    write_arrays(root)
    write_table(root)
    write_photos(root)
    (root / "empty").mkdir()
    (root / "models.py").write_text(MODELS)
    (root / "sibling.py").write_text("BIAS = 16.0\n")
    two, victim = root / "two.npz", root / "victim"
    commands: list[tuple[object, ...]] = [
        ("train", "--data", two, "--arch", "mlp", "--epochs", 3, "--out", victim),
        ("fit", "pca", "--data", two, "--out", root / "detector"),
        ("attack", "fgsm", "--model", victim, "--data", two, "--eps", 0.4, "--out", root / "results"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUSTGEN_DATA", str(tmp_path_factory.getbasetemp() / "robustgen-data"))
        for command in commands:
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                assert ended(command) == 0, said.getvalue()
    return root

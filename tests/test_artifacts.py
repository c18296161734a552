from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from robustgen import artifacts
from robustgen.artifacts import (
    MANIFEST,
    TENSORS,
    describe,
    digest,
    read_artifact,
    staged,
    state_digest,
    to_json,
    write_artifact,
    write_atomically,
)
from robustgen.errors import ArtifactError, OutputError, RobustgenError, UsageError


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
    with staged(tmp_path / "thing") as directory:
        write_artifact(directory, "detector", {"name": "x", "numbers": (1, 2)}, tensors)
    return tmp_path / "thing"


def test_what_is_written_is_read_back(artifact: Path) -> None:
    found = read_artifact(artifact, "detector")
    assert found.config == {"name": "x", "numbers": [1, 2]}
    assert torch.equal(found.tensors["a"], torch.arange(6.0).reshape(2, 3))
    assert found.tensors["b"].dtype == torch.int64
    assert {path.name for path in artifact.iterdir()} == {MANIFEST, TENSORS}
    assert describe(artifact)["values"] == 8


def test_no_changed_byte_goes_unnoticed(artifact: Path) -> None:
    """Bit flips, cuts and insertions anywhere in either file: an error every time, never another exception, never a
    wrong load.
    """
    rng = random.Random(0)
    originals = {name: (artifact / name).read_bytes() for name in (MANIFEST, TENSORS)}
    for trial in range(400):
        name = rng.choice([MANIFEST, TENSORS])
        data = bytearray(originals[name])
        place = rng.randrange(len(data))
        if trial % 4 == 0:
            data = data[:place]
        elif trial % 4 == 1:
            data.insert(place, rng.randrange(256))
        else:
            data[place] ^= 1 << rng.randrange(8)
        (artifact / name).write_bytes(data)
        try:
            found = read_artifact(artifact)
        except ArtifactError:
            pass
        else:  # white space inside JSON may change without a change of meaning
            assert name == MANIFEST
            assert json.loads(bytes(data)) == json.loads(originals[MANIFEST])
            assert found.kind == "detector"
        (artifact / name).write_bytes(originals[name])


def test_a_newer_format_says_so(artifact: Path) -> None:
    manifest = json.loads((artifact / MANIFEST).read_text())
    del manifest["sha256"]
    manifest["format"] = 99
    (artifact / MANIFEST).write_text(to_json({**manifest, "sha256": digest(to_json(manifest).encode())}))
    with pytest.raises(ArtifactError, match="format 99.*upgrade"):
        read_artifact(artifact)


def test_the_wrong_kind_or_no_artifact_says_so(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is a detector, but a classifier"):
        read_artifact(artifact, "classifier")
    with pytest.raises(ArtifactError, match="nothing there"):
        read_artifact(tmp_path / "missing")
    with pytest.raises(ArtifactError, match="holds no manifest"):
        read_artifact(tmp_path)
    with pytest.raises(ArtifactError, match="not something robustgen made"):
        describe(tmp_path)


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), staged(out) as directory:
        (directory / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_block_with_a_fingerprint_can_be_resumed_by_the_same_run_only(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), staged(out, fingerprint="same") as directory:
            (directory / "block").write_text("done")
            raise KeyboardInterrupt
    assert not out.exists()
    with staged(out, fingerprint="same") as directory:
        assert (directory / "block").read_text() == "done"
    assert [path.name for path in out.iterdir()] == ["block"]
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "b", fingerprint="one") as directory:
        (directory / "block").write_text("done")
        raise KeyboardInterrupt
    with staged(tmp_path / "b", fingerprint="other") as directory:
        assert not (directory / "block").exists()


def test_an_existing_result_is_replaced_only_on_request_and_only_if_ours(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--force"), staged(artifact):
        pass
    assert read_artifact(artifact).kind == "detector"
    with staged(artifact, force=True) as directory:
        write_artifact(directory, "classifier", {}, {"a": torch.zeros(1)})
    assert read_artifact(artifact).kind == "classifier"
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="replaces only what robustgen wrote"), staged(foreign, force=True):
        pass
    assert (foreign / "holiday.jpg").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"), staged(tmp_path / "file", force=True):
        pass


@pytest.mark.parametrize("fingerprint", [None, "same"])
@pytest.mark.parametrize("function", [artifacts._claim, artifacts._complete])
def test_an_interruption_at_any_line_leaves_nothing_or_all(
    tmp_path: Path, function: Any, fingerprint: str | None
) -> None:
    out = tmp_path / "deep" / "out"
    ended = []
    for number in range(100):
        lines = iter(range(number + 1))

        def at_a_line(frame: FrameType, event: str, _: Any, lines: Iterator[int] = lines, last: int = number) -> Any:
            if event == "call":
                return at_a_line if frame.f_code is function.__code__ else None
            if event == "line" and next(lines, None) == last:
                raise KeyboardInterrupt
            return at_a_line

        before = sys.gettrace()
        sys.settrace(at_a_line)
        try:
            with staged(out, fingerprint=fingerprint):
                pass
            ended.append("done")
        except KeyboardInterrupt:
            ended.append("interrupted")
        finally:
            sys.settrace(before)
        left = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
        assert left in ([], ["deep", "deep/out"]), number
        shutil.rmtree(tmp_path / "deep", ignore_errors=True)
        if ended[-1] == "done":
            break
    assert ended == ["interrupted"] * number + ["done"]
    assert number > 4


def test_two_runs_do_not_write_one_place(tmp_path: Path) -> None:
    out, partial = tmp_path / "out", tmp_path / ".out.partial"
    partial.mkdir()
    (partial / ".owner").write_text(str(os.getppid()))
    (partial / "theirs").touch()
    for fingerprint in (None, "same"):
        with pytest.raises(UsageError, match="another run"), staged(out, fingerprint=fingerprint):
            pass
    assert (partial / "theirs").exists()
    assert {path.name for path in partial.iterdir()} == {"theirs", ".owner"}
    (partial / ".owner").write_text("999999999")  # a process that is gone
    with staged(out):
        pass
    assert out.is_dir()


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be created"), staged(tmp_path / "file" / "out"):
        pass
    with pytest.raises(RobustgenError):
        write_atomically(tmp_path / "file" / "scores.csv", lambda path: None)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "scores.csv"
    target.write_text("old")
    with pytest.raises(UsageError, match="exists already"):
        write_atomically(target, lambda path: None)

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        write_atomically(target, fail, force=True)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_json_is_strict() -> None:
    assert json.loads(to_json({"a": float("nan"), "b": [float("inf"), 1], "c": (1, 2)})) == {
        "a": None,
        "b": [None, 1],
        "c": [1, 2],
    }


def test_state_digest_sees_names_values_shapes_and_types() -> None:
    base = {"a": torch.arange(4.0)}
    others = [
        {"b": torch.arange(4.0)},
        {"a": torch.arange(4.0) + 1e-6},
        {"a": torch.arange(4.0).reshape(2, 2)},
        {"a": torch.arange(4.0).double()},
    ]
    assert state_digest(base) == state_digest({"a": torch.arange(4.0)})
    assert len({state_digest(state) for state in [base, *others]}) == 5

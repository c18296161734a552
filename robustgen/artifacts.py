"""Trained things and results on disk: JSON and safetensors, hashed, whole or not there at all. Reading never executes
code.

An artifact is a directory with `manifest.json` (kind, configuration, the SHA-256 of every other file and of itself) and
`tensors.safetensors`. It is written beside its final place and renamed when complete.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustgen.errors import ArtifactError, OutputError, RobustgenError, UsageError

FORMAT = 1
MANIFEST, TENSORS, RESULTS = "manifest.json", "tensors.safetensors", "results.json"
_FINGERPRINT, _OWNER, _TEMPORARY = ".fingerprint", ".owner", ".partial"


@dataclass(frozen=True)
class Artifact:
    """What was read: its kind ("classifier", "detector"), its configuration, its tensors on the CPU, and its hash."""

    path: Path
    kind: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    sha256: str


def digest(data: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def state_digest(state: Mapping[str, Tensor]) -> str:
    """One hash over the names and values of a state dict, whatever its device."""
    whole = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().cpu().contiguous()
        whole.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        whole.update(values.reshape(-1).view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return whole.hexdigest()


def to_json(value: Any) -> str:
    """Strict JSON with sorted keys; NaN and infinities become null, and what is not UTF-8 in file names is escaped."""

    def clean(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(key): clean(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [clean(inner) for inner in item]
        if isinstance(item, float) and not math.isfinite(item):
            return None
        return item

    text = json.dumps(clean(value), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode()


def write_atomically(path: Path, write: Callable[[Path], object], force: bool = False) -> None:
    """Let `write` make a file beside `path`, then move it there. Raises `UsageError` if there is a folder, or a file
    without `force`.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file")
    if path.exists() and not force:
        raise UsageError(f"{path} exists already: choose another name, or overwrite it with --force")
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    created = _missing_parents(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _prune(created)
        if _is_of(error, temporary):
            raise _unwritten(path, error) from error
        raise


def _missing_parents(path: Path) -> list[Path]:
    """The folders that are to be made for `path`, the innermost first."""
    return [parent for parent in path.absolute().parents if not parent.exists()]


def _prune(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _is_of(error: BaseException, path: Path) -> bool:
    """Whether `path`, a folder above it or something in it could not be written; a full disk does not say which."""
    name = str(getattr(error, "filename", None) or path)
    if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):  # that is stdout, when its reader left
        return False
    return name in str(path) or str(path) in name


def _unwritten(path: Path, error: Any) -> OutputError:
    hint = "free some space or " if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
    return OutputError(f"{path} cannot be created: {error.strerror or error}: {hint}choose another place")


def _flush(path: Path) -> None:
    """Have the file on the disk before it gets its final name: a crash in between must not leave an empty one."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def staged(
    out: Path, force: bool = False, fingerprint: str | None = None, *, keep: str | None = None
) -> Iterator[Path]:
    """A directory to fill, which becomes `out` when the block ends well.

    `fingerprint`: of the whole configuration; if the block is interrupted or killed or the disk is full, what it wrote
    stays, and the next run with the same fingerprint finds it there and can go on: files, and the folder named `keep`,
    which holds only what is whole. Without one, nothing stays. An existing `out` is replaced only with `force`, and
    only if robustgen wrote it. Raises `UsageError` if it may not be replaced or if another run is writing it,
    `OutputError` if it cannot be written.
    """
    check_free(out, force)
    partial = out.with_name(f".{out.name}{_TEMPORARY}")
    created = _missing_parents(out)
    try:
        _claim(partial, fingerprint, keep)
        yield partial
        _complete(partial, out)
    except BaseException as error:
        problem = _unwritten(out, error) if _is_of(error, partial) else error
        if not _of_another(partial):
            # what the input or the settings made fail would fail again
            failed = isinstance(problem, RobustgenError) and not isinstance(problem, OutputError)
            if fingerprint is None or failed:
                shutil.rmtree(partial, ignore_errors=True)
            elif _release(partial):
                problem.add_note("what is done so far is kept, and the same command goes on from there")
        _prune(created)
        if problem is error:
            raise
        raise problem from error


def check_free(out: Path, force: bool, option: str = "--out") -> None:
    """Raise `UsageError` unless `out`, given with `option`, can be written: before hours of work, not after."""
    if Path.cwd().is_relative_to(out.resolve()):
        raise UsageError(f"{option} {out} is the folder you are in, or above it: name a new one")
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{option} {out} is a file: name a directory")
    if not any(out.iterdir()):
        return
    if not force:
        raise UsageError(f"{option} {out} exists already: choose another, or replace it with --force")
    if not any((out / name).is_file() for name in (MANIFEST, RESULTS)):
        why = f"--force replaces only what robustgen wrote, and {out} holds no {MANIFEST} or {RESULTS}"
        raise UsageError(f"{why}: choose another {option}")


def _claim(partial: Path, fingerprint: str | None, keep: str | None) -> None:
    """Make `partial` this process's own, empty but for what an earlier run with the same fingerprint has finished."""
    partial.mkdir(parents=True, exist_ok=True)
    owner, known = partial / _OWNER, partial / _FINGERPRINT
    mine = partial / f".{os.getpid()}{_TEMPORARY}"
    mine.write_text(str(os.getpid()))
    try:
        os.link(mine, owner)  # who owns it is there from the first moment on, or it fails
    except OSError:  # there is an owner, or the file system has no links
        if _of_another(partial):
            mine.unlink(missing_ok=True)
            what = f"another run (process {owner.read_text()}) is writing {partial.with_name(partial.name[1:-8])}"
            raise UsageError(f"{what}: wait for it") from None
        owner.write_text(str(os.getpid()))
    same = fingerprint is not None and known.is_file() and known.read_text() == fingerprint
    for path in partial.iterdir():
        if path.is_dir():
            if not (same and path.name == keep):
                shutil.rmtree(path)
        elif path != owner and (not same or path.suffix == _TEMPORARY):
            path.unlink()
    if fingerprint is not None:
        known.write_text(fingerprint)


def _release(partial: Path) -> bool:
    """Give `partial` up, leaving it for a later run if there is anything in it; whether there is."""
    with suppress(OSError):
        (partial / _OWNER).unlink(missing_ok=True)
        if any(path.name != _FINGERPRINT and path.suffix != _TEMPORARY for path in partial.iterdir()):
            return True
    shutil.rmtree(partial, ignore_errors=True)
    return False


def _of_another(partial: Path) -> bool:
    """Whether another process, one that is alive, is writing `partial`."""
    try:
        owner = int((partial / _OWNER).read_text())
        os.kill(owner, 0)
    except (OSError, ValueError, OverflowError) as error:
        return isinstance(error, PermissionError)
    return owner != os.getpid()


def _complete(partial: Path, out: Path) -> None:
    """Put `partial` in the place of `out`, all of it on the disk before."""
    for name in (_OWNER, _FINGERPRINT):
        (partial / name).unlink(missing_ok=True)
    for file in partial.rglob("*"):
        if file.is_file():
            _flush(file)
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists() and any(out.iterdir()):
        os.replace(out, old)
    os.replace(partial, out)
    shutil.rmtree(old, ignore_errors=True)


def write_artifact(directory: Path, kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write the manifest and the tensors into `directory`, which is a staged one."""
    from safetensors.torch import save

    data = save({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()})
    write_atomically(directory / TENSORS, lambda path: path.write_bytes(data), force=True)
    plain = json.loads(to_json(dict(config)))
    manifest = {"format": FORMAT, "kind": kind, "config": plain, "files": {TENSORS: digest(data)}}
    manifest["sha256"] = digest(to_json(manifest).encode())
    (directory / MANIFEST).write_text(to_json(manifest), encoding="utf-8")


def is_artifact(path: Path) -> bool:
    """Whether `path` looks like an artifact, without reading it."""
    return (path / MANIFEST).is_file()


def describe(path: Path) -> dict[str, Any]:
    """What `path` holds, as plain values: an artifact's configuration, after verifying its hashes, or a run's results.

    Raises `ArtifactError` if it is neither, or damaged.
    """
    if is_artifact(path) or (path / TENSORS).exists():
        found = read_artifact(path)
        values = sum(t.numel() for t in found.tensors.values())
        return {"kind": found.kind, "config": found.config, "values": values, "sha256": found.sha256}
    if not (path / RESULTS).is_file():
        what = "there is nothing there" if not path.exists() else f"it holds neither {MANIFEST} nor {RESULTS}"
        hint = "give a directory made by train, fit, attack or demo"
        raise ArtifactError(f"{path} is not something robustgen made: {what}; {hint}")
    try:
        results = json.loads((path / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path / RESULTS} cannot be read as JSON ({error}): run the command again") from error
    return {"kind": "results", **results} if isinstance(results, dict) else {"kind": "results", "results": results}


def read_artifact(path: Path, kind: str | None = None) -> Artifact:
    """Read an artifact back, verifying every hash. Raises `ArtifactError` if it is missing, damaged, newer or of
    another kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not is_artifact(path):
        what = "there is nothing there" if not path.exists() else f"it holds no {MANIFEST}"
        hint = "give a directory made by 'robustgen train', 'robustgen fit' or 'robustgen guard'"
        raise ArtifactError(f"{path} is not a robustgen artifact: {what}; {hint}")
    damaged = "it is damaged or was changed after it was written; make it again or restore it from a copy"
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        claimed = manifest.pop("sha256")
        version, found = manifest["format"], str(manifest["kind"])
        config, files = dict(manifest["config"]), dict(manifest["files"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path}: the manifest cannot be read ({type(error).__name__}): {damaged}") from error
    if isinstance(version, int) and version > FORMAT:
        raise ArtifactError(f"{path} has format {version}, and robustgen here reads up to {FORMAT}: upgrade robustgen")
    if claimed != digest(to_json(manifest).encode()):
        raise ArtifactError(f"{path}: the manifest does not match its own hash: {damaged}")
    if kind is not None and found != kind:
        raise ArtifactError(f"{path} is a {found}, but a {kind} is needed here")
    try:
        data = (path / TENSORS).read_bytes()
        if digest(data) != files[TENSORS]:
            raise ArtifactError(f"{path}: {TENSORS} does not match its hash: {damaged}")
        return Artifact(path, found, config, load(data), claimed)
    except (OSError, KeyError, SafetensorError) as error:
        raise ArtifactError(f"{path}: {TENSORS} cannot be read ({error}): {damaged}") from error

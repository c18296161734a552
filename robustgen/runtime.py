"""The one place that knows about hardware, processes, seeds and installed versions."""

from __future__ import annotations

import atexit
import ctypes
import platform
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

from robustgen.errors import UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator


def device(name: str = "auto") -> torch.device:
    """`auto` (CUDA, else Apple's MPS, else CPU), `cpu`, `cuda`, `cuda:1`, `mps`. Raises `UsageError` if it is not
    there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    there = [
        "cpu",
        *(["cuda"] if cuda else []),
        *(f"cuda:{i}" for i in range(torch.cuda.device_count() if cuda else 0)),
        *(["mps"] if mps else []),
    ]
    if name not in there:
        raise UsageError(f"device {name!r} is not available here: use auto or one of {', '.join(there)}")
    return torch.device(name)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run what draws from torch's global generators (weight initialisation, dropout) from `seed`, and put their state
    back.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.random.manual_seed(seed)
        yield


def random_state() -> list[torch.Tensor]:
    """The state of torch's global generators, the CPU's and then each GPU's, to be kept with a training."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def set_random_state(state: list[torch.Tensor]) -> None:
    """Go on drawing from where `random_state` was taken, as far as the GPUs of then are there now."""
    own, *there = state
    torch.set_rng_state(own)
    for number, one in zip(range(torch.cuda.device_count()), there, strict=False):
        torch.cuda.set_rng_state(one, number)


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, up to 1 GiB, instead of handing it back to the system.

    On a CPU a network's layers free and claim the same megabytes at every pass; claimed anew from the system, each page
    is faulted in again, which takes up to a third of an attack's time. Changes the C library's allocator for the whole
    process, so it is for programs to call, not for libraries; where that is not glibc, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        change = ctypes.CDLL(None).mallopt
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            change(parameter, 1 << 30)


@contextmanager
def fitting_threads(where: torch.device, values: int) -> Iterator[None]:
    """Run on one thread what is too small to share: inputs of fewer than 512 `values` on the CPU.

    Sharing such work between threads costs more than it saves, and many times more when the other cores are busy.
    """
    before = torch.get_num_threads()
    small = where.type == "cpu" and values < 512 and before > 1
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(before)


def has_bfloat16(where: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself: CUDA devices that do, and processors with AVX512-BF16 or AMX.

    On other processors torch imitates it, and a convolution takes 15 to 20 times as long as in float32.
    """
    if where.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if where.type != "cpu":
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def accelerator() -> Accelerator:
    """Accelerate's handle on this process and its siblings: gradients averaged over all, one of them the main one.

    Placement stays with the caller, who names the device; with several processes (started by `torchrun`) each has its
    own, `accelerator().device`. They part when the interpreter ends, unless the caller has parted them before.
    """
    from accelerate import Accelerator

    handle = Accelerator(device_placement=False)
    if handle.num_processes > 1:
        _part_at_exit()
    return handle


@cache
def _part_at_exit() -> None:
    def part() -> None:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    atexit.register(part)


class _Held:
    """What each copy of a context holds while a block of `communication_done` runs."""


_held: ContextVar[_Held] = ContextVar("robustgen_communication")


@contextmanager
def communication_done(patience: float = 10.0) -> Iterator[None]:
    """Leave the block when torch's communication threads have let go of what its backward passes gave them.

    An average of gradients that a backward pass starts holds a copy of Python's context, which its thread drops some
    time after the result is there. A process that has ended its work by then is taken down with it ("terminate called
    without an active exception", pytorch issue 190489), and the launcher calls the whole run failed. Waits at most
    `patience` seconds, since other threads may hold copies of that context for as long as they please.
    """
    held = _Held()
    alive, token = weakref.ref(held), _held.set(held)
    del held
    try:
        yield
    finally:
        _held.reset(token)
        del token
        until = time.monotonic() + patience
        while alive() is not None and time.monotonic() < until:
            time.sleep(0.001)


def versions() -> dict[str, str]:
    """The versions that a result depends on, as stored with it. Imports nothing."""
    found = {"python": platform.python_version()}
    for package in (
        "robustgen",
        "torch",
        "torchvision",
        "scikit-learn",
        "numpy",
        "adversarial-robustness-toolbox",
        "pyod",
    ):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe(where: torch.device) -> dict[str, Any]:
    """The device and thread count that a timing depends on."""
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else where.type
    return {"device": name, "threads": torch.get_num_threads()}

"""How seldom inputs like this one have come before: visit counts of hashed codes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.data.hold_out import hold_out
from robustgen.data.rows import Rows
from robustgen.detectors.autoencoder import AutoencoderDetector
from robustgen.detectors.base import Detector
from robustgen.detectors.standardise import Scale
from robustgen.errors import RobustgenError, UsageError
from robustgen.training.descent import TrainingProgress

S = TypeVar("S", bound="SimHashDetector")


@final
class SimHashDetector(Detector):
    """Mean over several tables of 1 / sqrt(1 + n), n = how often the input's hash was counted in that table.

    The hash is the signs of random projections (Charikar 2002) of the whitened code of an autoencoder (Tang et al.
    2016, section 2.3), orthogonal to each other as far as the code is wide enough (Ji et al. 2012), which tells more
    apart at the same number of bits. Scores lie in (0, 1]; 1 = no table has met such an input. They are piecewise
    constant in the input, so they have no useful gradient. `partial_fit` counts further inputs; n is then the count for
    as many inputs as there were at the fit, so that thresholds keep their meaning while counts grow.

    `bits`: of one hash, None = log2(inputs), so that a cell would hold one input if they spread evenly; fewer tell less
    apart, more make all inputs new. `tables`: independent hashes; what more of them take away is noise. `network`: of
    the autoencoder, as `ReconstructionDetector` has them with `code`, `preset`, `epochs`, `batch_size` and
    `learning_rate`;
    "none" = the inputs themselves are hashed: vectors whitened, the values of images each less their mean, by their
    standard deviation.
    """

    differentiable = False
    scale: Scale = "none"  # the autoencoder has its own, and hashes are of whitened values

    centre: Tensor
    planes: Tensor
    visited: Tensor
    counts: Tensor
    seen: Tensor
    reference: Tensor
    unseen: Tensor

    def __init__(
        self,
        tables: int = 64,
        bits: int | None = None,
        network: str = "auto",
        code: int = 16,
        preset: str = "default",
        epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 1 <= tables <= 256 or (bits is not None and not 1 <= bits <= 48):
            raise UsageError(f"simhash has 1 to 256 tables and hashes of 1 to 48 bits, but {tables} and {bits} came")
        self.tables, self.bits, self.network, self.code = tables, bits, network, code
        self.preset, self.epochs, self.batch_size = preset, epochs, batch_size
        self.learning_rate, self.seed = learning_rate, seed
        self.codec = None if network == "none" else self._codec()
        self.register_buffer("centre", torch.empty(0))
        self.register_buffer("planes", torch.empty(0, 0))
        for name in ("visited", "counts"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64))
        for name in ("seen", "reference"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))
        self.register_buffer("unseen", torch.full((), math.nan))

    def _codec(self) -> AutoencoderDetector:
        return AutoencoderDetector(
            network=self.network,
            code=self.code,
            scores="l2",
            preset=self.preset,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )

    def _build(self, shape: tuple[int, ...]) -> None:
        if self.codec is not None:
            self.codec = self._codec().to(self._device)
            self.codec._prepare(shape)

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        if self.codec is not None:
            self.codec.fit(rows, progress=progress, checkpoint=self._checkpoint)
        kept, held = hold_out(rows, seed=self.seed, device=self._device)
        apart = len(kept) + len(held) <= len(rows)
        mean, whitening = _whitening(self._codes(kept), full=self.codec is not None or len(rows.shape) == 1)
        bits = self.bits or max(1, round(math.log2(len(rows))))
        drawn = _directions(len(whitening), self.tables, bits, self.seed)
        planes = whitening @ drawn if whitening.ndim == 2 else whitening[:, None] * drawn
        self.centre, self.planes = mean.float().to(self._device), planes.float().to(self._device)
        self.forget()
        self._count(torch.cat([self._hashes(code) for code in self._codes(kept)]))
        self.unseen = torch.full((), math.nan, device=self._device)
        if apart:
            hashes = torch.cat([self._hashes(code) for code in self._codes(held)])
            self.unseen = (self._frequencies(hashes) == 0).float().mean()
            self._count(hashes)
        self.reference = self.seen.clone()

    def _codes(self, rows: Rows) -> Iterator[Tensor]:
        with torch.no_grad():
            for x in rows.batches(512):
                yield self._encode(x.to(self._device))

    def _encode(self, x: Tensor) -> Tensor:
        return x.flatten(1) if self.codec is None else self.codec.encode(x)

    def _hashes(self, code: Float[Tensor, "n k"]) -> Int64[Tensor, "n tables"]:
        """One number a table, all different between tables."""
        bits = self.planes.shape[1] // self.tables
        signs = (code - self.centre.to(code.dtype)) @ self.planes.to(code.dtype) > 0
        worth = 2 ** torch.arange(bits, device=code.device)
        numbers: Tensor = (signs.unflatten(1, (self.tables, bits)) * worth).sum(2)
        return numbers + (torch.arange(self.tables, device=code.device) << bits)

    def _frequencies(self, hashes: Int64[Tensor, "n tables"]) -> Int64[Tensor, "n tables"]:
        if not len(self.visited):
            return torch.zeros_like(hashes)
        place = torch.searchsorted(self.visited, hashes).clamp(max=len(self.visited) - 1)
        return torch.where(self.visited[place] == hashes, self.counts[place], 0)

    def _count(self, hashes: Int64[Tensor, "n tables"]) -> None:
        flat = hashes.flatten()
        self._add(flat, torch.ones_like(flat), len(hashes))

    def _add(self, visited: Tensor, counts: Tensor, seen: int) -> None:
        self.visited, place = torch.unique(torch.cat([self.visited, visited]), return_inverse=True)
        joined = torch.cat([self.counts, counts])
        self.counts = torch.zeros_like(self.visited).index_add_(0, place, joined)
        self.seen = self.seen + seen

    def partial_fit(self: S, x: Float[Tensor, "n *shape"]) -> S:
        """Count these inputs too, and return self. The autoencoder and the hashes stay as they are.

        Raises `RobustgenError` before `fit`, `UsageError` for inputs of another shape.
        """
        if self.shape is None:
            raise RobustgenError("simhash is not fitted: call fit(data) before partial_fit(x)")
        if tuple(x.shape[1:]) != self.shape:
            raise UsageError(f"this detector was fitted on inputs of shape {self.shape}, but {tuple(x.shape[1:])} came")
        with torch.no_grad():
            self._count(self._hashes(self._encode(x.to(self._device))))
        return self

    def forget(self: S) -> S:
        """Empty the tables, and return self: such a copy counts inputs elsewhere, to be merged."""
        self.visited, self.counts = (torch.empty(0, dtype=torch.int64, device=self._device) for _ in range(2))
        self.seen = torch.zeros((), dtype=torch.int64, device=self._device)
        return self

    def merge(self: S, other: S) -> S:
        """Add the counts of `other`, and return self. Raises `UsageError` unless both hash in the same way."""
        mine, theirs = self.state_dict(), other.state_dict()
        apart = {"visited", "counts", "seen", "reference", "unseen"}
        if mine.keys() != theirs.keys() or not all(
            torch.equal(mine[name], theirs[name].to(mine[name].device)) for name in mine.keys() - apart
        ):
            raise UsageError("only detectors with the same autoencoder and hashes can be merged: copies of one fit")
        self._add(other.visited.to(self._device), other.counts.to(self._device), int(other.seen))
        return self

    def facts(self) -> dict[str, float]:
        """`unseen`: the share of held-out normal inputs' hashes that no training input has. Above a half the hashes
        are too fine for this much data. `seen`: how many inputs were counted. `bits` of one hash.
        """
        return {
            "unseen": float(self.unseen),
            "seen": int(self.seen),
            "bits": self.planes.shape[1] // self.tables,
        }

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        with torch.no_grad():
            n = self._frequencies(self._hashes(self._encode(x))).to(x.dtype)
            return (1 + n * (self.reference / self.seen.clamp(min=1))).rsqrt().mean(1)


def _directions(k: int, tables: int, bits: int, seed: int) -> Float[Tensor, "k m"]:
    """`bits` random directions for each table, at most k of them in a row orthogonal to each other."""
    generator, blocks = torch.Generator().manual_seed(seed), list[Tensor]()
    for _ in range(tables):
        for start in range(0, bits, k):
            drawn = torch.randn(k, min(k, bits - start), generator=generator, dtype=torch.float64)
            blocks.append(torch.linalg.qr(drawn).Q)
    return torch.cat(blocks, 1)


def _whitening(codes: Iterator[Tensor], *, full: bool) -> tuple[Tensor, Tensor]:
    """The mean (k,) of the codes, and what brings them to unit covariance around it, (k, k), or, if not `full`, each of
    their values to unit variance, (k,).
    """
    n, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for batch in codes:
        code = batch.cpu().double()  # not every accelerator has doubles
        n, total = n + len(code), total + code.sum(0)
        squares = squares + (code.T @ code if full else code.square().sum(0))
    mean = total / n
    if not full:
        variance = squares / n - mean.square()
        return mean, torch.where(variance > 1e-12, variance, torch.inf).rsqrt()
    values, vectors = torch.linalg.eigh(squares / n - torch.outer(mean, mean))
    return mean, vectors * values.clamp(min=max(1e-12, 1e-6 * float(values.max()))).rsqrt()

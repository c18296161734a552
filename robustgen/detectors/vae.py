"""A variational autoencoder's likelihood, and the scores that do not share its failure."""

from __future__ import annotations

from typing import final

from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.variational import Labels, VariationalDetector


@final
class VAEDetector(VariationalDetector):
    """A variational autoencoder (Kingma, Welling 2014) trained on normal inputs: see `VariationalDetector` for the
    options.
    """

    def __init__(
        self,
        likelihood: str = "auto",
        network: str = "auto",
        code: int = 16,
        scores: str = "auto",
        draws: int = 8,
        preset: str = "default",
        epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(likelihood, network, code, scores, draws, preset, epochs, batch_size, learning_rate, seed)

    def _labels(self) -> int:
        return 0

    def _packed(self, rows: Rows) -> Rows:
        return rows

    def _unpacked(self, packed: Tensor) -> tuple[Tensor, Labels]:
        return packed, None

    def _condition(self, x: Tensor, condition: Tensor | None) -> Labels:
        return None

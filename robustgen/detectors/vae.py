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

    def _labels(self) -> int:
        return 0

    def _packed(self, rows: Rows) -> Rows:
        return rows

    def _unpacked(self, packed: Tensor) -> tuple[Tensor, Labels]:
        return packed, None

    def _condition(self, x: Tensor, condition: Tensor | None) -> Labels:
        return None

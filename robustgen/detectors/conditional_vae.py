"""A variational autoencoder that knows what an input is said to be."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

from robustgen.data.labelled import LabelledRows, unpacked
from robustgen.data.rows import Rows
from robustgen.detectors.labels import count_classes, labels_for
from robustgen.detectors.variational import Labels, VariationalDetector
from robustgen.errors import UsageError


@final
class ConditionalVAEDetector(VariationalDetector):
    """A variational autoencoder of inputs given their labels (Sohn, Lee, Yan 2015), trained on labelled normal inputs.

    The score's condition is the label that a classifier predicts: what the networks make of the input as one of that
    class is what is judged. `scores`: those of "vae", and "gap", by how much the best other class explains the input
    better. `classes`: how many labels there are; None = as many as the training data has, known once fitted. For the
    other options see `VariationalDetector`.
    """

    conditional = True
    by_default: ClassVar[str] = "gap+density"

    def __init__(
        self,
        classes: int | None = None,
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
        if classes is not None and classes < 2:
            raise UsageError(f"there must be at least 2 classes, but {classes} came")
        self.classes, self._asked = classes, classes

    def _labels(self) -> int | None:
        return self.classes

    def _packed(self, rows: Rows) -> Rows:
        packed = LabelledRows(rows)
        self.classes = count_classes(packed, self._asked)
        return packed

    def _unpacked(self, packed: Tensor) -> tuple[Tensor, Labels]:
        return unpacked(packed, self.shape or ())

    def _condition(self, x: Tensor, condition: Tensor | None) -> Labels:
        return labels_for(x, condition, self.classes or 0, "conditional-vae")

"""ART's binary detectors: networks taught to tell normal inputs from attacked ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor, nn

from robustgen.attacks.art_attack import explained, quiet
from robustgen.attacks.pgd import PGD
from robustgen.data.rows import Rows
from robustgen.detectors.art_layer import ArtLayer, art_detectors
from robustgen.detectors.neighbours import kept_rows
from robustgen.detectors.watching import WatchingDetector
from robustgen.errors import DataError, UsageError
from robustgen.models.build import build
from robustgen.threat import ThreatModel
from robustgen.training.descent import TrainingProgress

_FEWEST = 8  # attacked inputs to learn from


class BinaryDetector(WatchingDetector, ABC):
    """A network trained by ART on training inputs (class 0) and what an attack makes of them (class 1); the score is
    the second logit less the first, differentiable.

    It is taught with attacked inputs, which other detectors here are not: PGD in Linf against the label that the
    classifier gives, at `eps` in input units and with `steps` steps, of which those that change the label are kept.
    What it says of other attacks, of other sizes, or of an attacker who knows it is another matter. Inputs lie between
    the lesser of 0 and the least training value and the larger of 1 and the greatest.

    `arch`: the network, one of `models.ARCHITECTURES`; "auto" = small-cnn for what has the form of an image, else mlp.
    `most`: training inputs, drawn by `seed`. `epochs`, `batch_size`, `learning_rate`: of ART's training, by Adam.
    Raises `DataError` where the attack fools the classifier on fewer than 8.
    """

    network: nn.Module

    def __init__(
        self,
        eps: float,
        steps: int,
        arch: str,
        most: int,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
    ) -> None:
        super().__init__()
        for name, value in {"steps": steps, "epochs": epochs, "batch_size": batch_size}.items():
            if value < 1:
                raise UsageError(f"{name} must be at least 1, but {value} came")
        if not 0 < eps < float("inf") or not 0 < learning_rate < float("inf"):
            raise UsageError(f"eps and learning_rate must be above 0, but {eps:g} and {learning_rate:g} came")
        if most < _FEWEST:
            raise UsageError(f"at least {_FEWEST} training inputs are needed, but most={most} came")
        self.eps, self.steps, self.arch, self.most = eps, steps, arch, most
        self.epochs, self.batch_size, self.learning_rate, self.seed = epochs, batch_size, learning_rate, seed

    @property
    @abstractmethod
    def _art(self) -> str:
        """ART's class."""

    @abstractmethod
    def _entering(self, x: Tensor) -> Tensor:
        """What the network sees of inputs."""

    @abstractmethod
    def _detector(self, kind: Any, estimator: Any) -> Any:
        """ART's detector around its estimator of the network."""

    def _enter(self, shape: tuple[int, ...]) -> None:
        """Make ready for inputs of `shape`."""

    @final
    def _build(self, shape: tuple[int, ...]) -> None:
        self._enter(shape)
        with torch.no_grad():
            seen = tuple(self._entering(torch.zeros(1, *shape, device=self._device)).shape[1:])
        arch = self.arch
        if arch == "auto":
            arch = "small-cnn" if len(seen) == 3 and min(seen[1:]) >= 4 else "mlp"
        self.network = build(arch, seen, 2, seed=self.seed).to(self._device)

    @final
    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        kind = getattr(art_detectors(), self._art)
        normal = kept_rows(rows, self.most, self.seed).reshape(-1, *rows.shape).to(self._device)
        attacked = self._attacked(normal)
        x = torch.cat([normal, attacked])
        y = torch.arange(len(x), device=x.device) >= len(normal)
        one_hot = torch.stack([~y, y], 1).float().cpu().numpy()
        with quiet(self.seed, self._device), explained(self._art), torch.enable_grad():
            detector = self._detector(kind, self._estimator())
            for epoch in range(self.epochs):
                detector.fit(x.cpu().numpy(), one_hot, batch_size=self.batch_size, nb_epochs=1)
                if progress is not None:
                    progress(epoch + 1, self.epochs, self._loss(x, y))
        self.network.eval()

    def _estimator(self) -> Any:
        from art.estimators.classification import PyTorchClassifier

        (entering,) = self._entering(torch.zeros(1, *(self.shape or ()), device=self._device))
        return PyTorchClassifier(
            model=self.network,
            loss=nn.CrossEntropyLoss(),
            optimizer=torch.optim.Adam(self.network.parameters(), lr=self.learning_rate),
            input_shape=tuple(entering.shape),
            nb_classes=2,
            device_type="gpu" if self._device.type == "cuda" else "cpu",
        )

    def _attacked(self, x: Tensor) -> Tensor:
        """What the attack makes of `x`, where the classifier changes its mind."""
        low, high = min(0.0, float(x.min())), max(1.0, float(x.max()))
        attack = PGD(threat=ThreatModel("linf", self.eps, low, high), steps=self.steps, seed=self.seed)
        with torch.no_grad():
            label = torch.cat([self.logits(part).argmax(1) for part in x.split(500)])
        found = attack.run(self.classifier, x, label)
        if int(found.success.sum()) < _FEWEST:
            raise DataError(
                f"art:{self._art} learns from attacked inputs, but PGD at eps {self.eps:g} changes the classifier's "
                f"answer on {int(found.success.sum())} of {len(x)}, and {_FEWEST} are needed: give a larger eps or "
                "more inputs"
            )
        return found.x_adv[found.success]

    def _loss(self, x: Tensor, y: Tensor) -> float:
        """The mean loss on some of each kind."""
        some = torch.linspace(0, len(x) - 1, min(len(x), 500), device=x.device).long()
        with torch.no_grad():
            return float(nn.functional.cross_entropy(self.network(self._entering(x[some])), y[some].long()))

    @final
    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        normal, attacked = self.network(self._entering(x)).unbind(1)
        score: Tensor = attacked - normal
        return score


@final
class BinaryInputDetector(BinaryDetector):
    """ART's `BinaryInputDetector`: the network sees the input itself."""

    _art = "BinaryInputDetector"

    def __init__(
        self,
        eps: float = 0.1,
        steps: int = 10,
        arch: str = "auto",
        most: int = 10_000,
        epochs: int = 10,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(eps, steps, arch, most, epochs, batch_size, learning_rate, seed)

    def _entering(self, x: Tensor) -> Tensor:
        return x

    def _detector(self, kind: Any, estimator: Any) -> Any:
        return kind(estimator)


@final
class BinaryActivationDetector(BinaryDetector):
    """ART's `BinaryActivationDetector`: the network sees what `layer` of the classifier makes of the input, "last" =
    its last activation, as a first network on hidden activations did (Metzen, Genewein, Fischer, Bischoff 2017).
    """

    _art = "BinaryActivationDetector"

    def __init__(
        self,
        layer: str = "last",
        eps: float = 0.1,
        steps: int = 10,
        arch: str = "auto",
        most: int = 10_000,
        epochs: int = 10,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(eps, steps, arch, most, epochs, batch_size, learning_rate, seed)
        self.layer = layer

    def _enter(self, shape: tuple[int, ...]) -> None:
        self._seen = ArtLayer(self.classifier, self.layer, self._device)

    def _entering(self, x: Tensor) -> Tensor:
        return self._seen(x)

    def _detector(self, kind: Any, estimator: Any) -> Any:
        return kind(self._seen, estimator, self._seen.name)

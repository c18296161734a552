"""VAE or GAN? Generative detectors of the same images: what they make, give back and catch, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from robustgen.attacks.pgd import PGD
from robustgen.bench.cell import Cell, Found, Work
from robustgen.bench.places import open_data
from robustgen.bench.prepared import Classifier, Fit, classifier, detector, read_metrics
from robustgen.detectors.self_test import anomalies
from robustgen.errors import DataError
from robustgen.evaluation.frechet import embedding
from robustgen.evaluation.generative import generative
from robustgen.objectives import Model
from robustgen.threat import ThreatModel


@final
@dataclass(frozen=True)
class Generator(Cell):
    """One generative detector (see `Generative`). Sample quality is the Fréchet distance of `samples` images on the
    features of Inception where its weights are at hand, else on those of `victim`.

    Anomalies, `n` of each kind: `foreign` data, images turned upside down, the made-up ones of the self-test after a
    fit, and what PGD (Linf, `eps`) makes of test images against `victim`, beside sign noise of the same size.
    """

    kind: ClassVar[str] = "vae-vs-gan"
    data: str
    victim: Classifier
    detector: Fit
    foreign: tuple[str, ...] = ()
    eps: float = 0.1
    n: int = 300
    samples: int = 1000
    seed: int = 0

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.data, *self.foreign)

    @property
    def title(self) -> str:
        return f"vae-vs-gan {self.detector.detector}, seed {self.seed}"

    def run(self, work: Work) -> Found:
        source, model = work.source(self.data), classifier(work, self.victim)
        network = model.network.to(work.device)
        test = source.read(source.spread("test", 2 * self.samples + self.n))
        if test.y is None or len(test) < 2 * self.samples + self.n:
            raise DataError(
                f"{source.spec.name!r} has {len(test)} {'unlabelled ' if test.y is None else ''}test images: labelled "
                f"ones are needed, 2 x {self.samples} + {self.n}"
            )
        base, labels, normal = test.x[: self.n], test.y[: self.n], test.x[self.n :]
        kinds = {}
        for name in self.foreign:
            other = open_data(name, like=source.spec)
            kinds[other.spec.name] = other.read(other.spread("test", self.n)).x
        kinds |= _made(base, labels, network, self.eps, self.seed, work.device)
        embed, features = embedding(model, work.device)
        row = generative(
            detector(work, self.detector),
            normal,
            kinds,
            embed,
            features.replace(str(work.place(self.victim)), "the victim"),
            samples=self.samples,
            seconds_to_fit=read_metrics(work, self.detector)["fit_cpu_seconds"],
            seed=self.seed,
        )
        return Found(row.to_json())


def _made(x: Tensor, y: Tensor, network: Model, eps: float, seed: int, where: torch.device) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    found = {"upside down": x.flip(2), **anomalies(x, "image", 0.0, 1.0, random)}
    result = PGD(threat=ThreatModel("linf", eps), steps=40).run(network, x.to(where), y.to(where))
    fooled = result.x_adv[result.success].cpu()
    if len(fooled):  # only what succeeds is an attack
        found[f"PGD {eps:g}"] = fooled
    signs = torch.randint(0, 2, x.shape, generator=random) * 2.0 - 1
    found[f"noise of +-{eps:g}"] = (x + eps * signs).clamp(0, 1)
    return found

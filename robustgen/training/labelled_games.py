"""Games over inputs with labels: is this a real input, and is it what its label says?"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from robustgen.attacks.pgd import PGD
from robustgen.data.labelled import unpacked
from robustgen.models.gan import Discriminator, Generator
from robustgen.objectives import Misclassify
from robustgen.objectives import cross_entropy as log_loss
from robustgen.threat import ThreatModel
from robustgen.training.gan import critic_terms, maker_term
from robustgen.training.negatives import Corrupt
from robustgen.training.two_players import Game
from robustgen.training.variety import variety

Matching = Literal["aware", "none"]


class LabelledGame(Game):
    """A discriminator of pairs (input, label) and a generator of inputs of a class, on batches of `LabelledRows`.

    `negatives`: corrupts normal inputs, which then count as fake under their own label.
    """

    apart: ClassVar[int] = 1
    """One fake is made for so many real inputs."""
    generates: bool = True
    """Whether the generator learns."""

    def __init__(
        self,
        discriminator: Discriminator,
        generator: Generator,
        shape: tuple[int, ...],
        *,
        negatives: Corrupt | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(discriminator, generator)
        self.discriminator, self.generator, self.shape = discriminator, generator, shape
        self.negatives, self.seed = negatives, seed

    @abstractmethod
    def _critic_loss(self, x: Tensor, y: Tensor, fake: Tensor, step: int, random: torch.Generator) -> Tensor:
        """What the discriminator pays for a batch and for fakes of the classes of every `apart`th input."""

    @final
    def critic_loss(self, batch: Any, step: int) -> Tensor:
        x, y = unpacked(batch, self.shape)
        with torch.no_grad():
            fake = self._made(self._some(y))
        if self.generates:
            self.facts["variety"] = variety(fake, self._some(x))
        return self._critic_loss(x, y, fake, step, torch.Generator().manual_seed(self.seed * 1_000_003 + step))

    @final
    def _some(self, values: Tensor) -> Tensor:
        """Those of a batch's values that fakes are made for: of every `apart`th input, and two at least."""
        return values[:: max(1, min(self.apart, len(values) // 2))]

    @final
    def _made(self, y: Tensor) -> Tensor:
        like = next(self.generator.parameters())
        made: Tensor = self.generator(torch.randn(len(y), self.generator.code, device=like.device, dtype=like.dtype), y)
        return made

    @final
    def _told_apart(self, real: Tensor, fake: Tensor) -> None:
        """Keep the share of pairs of a real and a made input in which the real one is rated higher."""
        self.facts["told apart"] = (real.detach()[:, None] > fake.detach()[None]).to(real.dtype).mean()


@final
class MatchingGame(LabelledGame):
    """Hinge losses (Lim, Ye 2017). With `matching` "aware", real inputs under a wrong label count as fake too (Reed et
    al. 2016, GAN-CLS), half of all fakes: without them only the generator's mistakes teach what a label means. `hard`:
    the share of wrong labels that are those which the discriminator itself finds the most fitting; the others are
    random.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        generator: Generator,
        shape: tuple[int, ...],
        *,
        matching: Matching = "aware",
        hard: float = 0.5,
        negatives: Corrupt | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(discriminator, generator, shape, negatives=negatives, seed=seed)
        self.matching, self.hard = matching, hard

    def _critic_loss(self, x: Tensor, y: Tensor, fake: Tensor, step: int, random: torch.Generator) -> Tensor:
        inputs = [x, fake] if self.negatives is None else [x, fake, self.negatives(x, random)]
        every = self.discriminator.every(torch.cat(inputs)).split(len(x))
        real, *unreal = [numbers.gather(1, y[:, None])[:, 0] for numbers in every]
        self._told_apart(real, unreal[0])
        if self.matching == "aware":
            wrong = wrong_labels(every[0].detach(), y, self.hard, random)
            # as many as all other fakes together
            unreal += [every[0].gather(1, wrong[:, None])[:, 0]] * len(unreal)
        for_real, _ = critic_terms("hinge", real, unreal[0])
        fakes = [critic_terms("hinge", real, numbers)[1].mean() for numbers in unreal]
        return for_real.mean() + torch.stack(fakes).mean()

    def maker_loss(self, batch: Any, step: int) -> Tensor:
        _, y = unpacked(batch, self.shape)
        return maker_term("hinge", self.discriminator(self._made(y), y)).mean()


@final
class WorstCaseGame(LabelledGame):
    """Real inputs against inputs of other classes that an attacker has pushed towards the label (after Yin, Kolouri,
    Rohde 2020, "GAT: generative adversarial training for adversarial example detection and robust classification"):
    only what has a wrong label is attacked, since no attacker wants to be caught with a right one.

    A pushed input's own label must still fit it best, by cross-entropy over the labels: a binary loss on the label
    alone can be met by taking any noise for an attack. The attacker goes towards a class drawn by how well it fits
    already: what is far from every other class teaches little.

    `attack`: see `towards`; its size grows from 0 over the first third of `total` turns. `clean`: what the labels of
    inputs as they come weigh beside those of attacked ones. `rest`: what binary losses (real or not) of real inputs,
    fakes and `negatives` under their own labels weigh; with 0 there are none of them, and the generator is left as it
    began. `unit` (*shape): what 1 in each value of the batches is in the units of the attack, if they are standardised.
    """

    apart: ClassVar[int] = 8

    def __init__(
        self,
        discriminator: Discriminator,
        generator: Generator,
        shape: tuple[int, ...],
        *,
        attack: PGD,
        total: int,
        rest: float = 0.0,
        clean: float = 0.5,
        unit: Tensor | None = None,
        negatives: Corrupt | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(discriminator, generator, shape, negatives=negatives, seed=seed)
        self.attack, self.total, self.rest, self.clean = attack, total, rest, clean
        self.generates = rest > 0
        self.unit = unit

    def _critic_loss(self, x: Tensor, y: Tensor, fake: Tensor, step: int, random: torch.Generator) -> Tensor:
        with torch.no_grad():
            numbers = self.discriminator.every(x).float().scatter(1, y[:, None], -torch.inf)
            target = torch.multinomial(numbers.softmax(1).cpu(), 1, generator=random)[:, 0].to(x.device)
        own, inputs = y[:: self.apart], [x, self.pushed(x, target, step)]
        if self.rest:
            inputs.append(fake)
        if self.rest and self.negatives is not None:
            inputs.append(self.negatives(x[:: self.apart], random))
        every = self.discriminator.every(torch.cat(inputs)).float()
        clean, pushed, *others = every.split([len(part) for part in inputs])
        right = pushed.detach().argmax(1) == y
        self.facts["own label held"] = right.to(x.dtype).mean()
        labels = cross_entropy(pushed, y).mean() + self.clean * cross_entropy(clean, y).mean()
        if not self.rest:
            return labels
        real = clean.gather(1, y[:, None])[:, 0]
        unreal = [part.gather(1, own[:, None])[:, 0] for part in others]
        self._told_apart(real, unreal[0])
        return labels + self.rest * (softplus(-real).mean() + torch.stack([softplus(p).mean() for p in unreal]).mean())

    def pushed(self, x: Tensor, target: Tensor, step: int, pushes: int | None = None) -> Tensor:
        """The inputs as an attacker of the turn `step` changes them to be taken for the class `target`, in his own
        number of steps or in `pushes`.
        """
        size = self.attack.threat.eps * min(1.0, (step + 1) / (self.total / 3))
        steps = pushes or self.attack.steps
        threat = replace(self.attack.threat, eps=size)
        attack = replace(self.attack, threat=threat, seed=step, steps=steps, step_size=2 * size / steps)
        if self.unit is None:
            return attack(_Every(self.discriminator), x, target)
        return attack(_Every(self.discriminator, self.unit), x * self.unit, target) / self.unit

    def maker_loss(self, batch: Any, step: int) -> Tensor:
        if not self.rest:  # nobody to play with
            return torch.stack([parameter.sum() for parameter in self.generator.parameters()]).sum() * 0
        y = self._some(unpacked(batch, self.shape)[1])
        return softplus(-self.discriminator(self._made(y), y)).mean()


def towards(eps: float, low: float, high: float, steps: int) -> PGD:
    """An attacker that makes a discriminator find the class given, `y`, the most fitting one: PGD on log p(y), with p
    the softmax of D(x, k) over the labels k.
    """
    threat = ThreatModel("linf", eps, low, high)
    return PGD(
        threat=threat, steps=steps, mode="last", objective=Misclassify(log_loss, targeted=True), batch_size=1 << 20
    )


def refusal(numbers: Tensor, y: Tensor) -> Tensor:
    """-D(x, y) from the numbers with every label: a loss that falls as the label is accepted."""
    return -numbers.gather(1, y[:, None])[:, 0]


def wrong_labels(numbers: Tensor, y: Tensor, hard: float, random: torch.Generator) -> Tensor:
    """(n,) labels other than `y`: with the chance `hard` the one with the highest of the `numbers` (n, classes), else
    any.
    """
    classes = numbers.shape[1]
    anything = (y + torch.randint(1, classes, (len(y),), generator=random).to(y)) % classes
    fitting = numbers.scatter(1, y[:, None], -torch.inf).argmax(1)
    return torch.where(torch.rand(len(y), generator=random).to(numbers) < hard, fitting, anything)


@final
class _Every(nn.Module):
    """A discriminator as a model that an attack sees: an input's numbers with every label are its logits."""

    def __init__(self, discriminator: Discriminator, unit: Tensor | None = None) -> None:
        super().__init__()
        self.discriminator, self.unit = discriminator, unit

    def forward(self, x: Tensor) -> Tensor:
        return self.discriminator.every(x if self.unit is None else x / self.unit)

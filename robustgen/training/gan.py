"""The game of a generative adversarial network whose discriminator is to be a detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from robustgen.errors import UsageError
from robustgen.models.gan import Discriminator
from robustgen.training.negatives import Corrupt
from robustgen.training.two_players import Game
from robustgen.training.variety import variety

Loss = Literal["hinge", "non-saturating", "wasserstein"]
LOSSES: tuple[Loss, ...] = get_args(Loss)

_LAZY = 8  # steps from one gradient penalty to the next (Karras et al. 2020, "lazy regularization")
_KEPT = 4  # batches of earlier fakes

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Differentiable: (inputs, generator) -> inputs, changed as real inputs may be without being fake."""


def penalty_by_default(loss: Loss) -> float:
    """Weight of the gradient penalty where none is asked for: R1 for non-saturating, that of WGAN-GP for wasserstein.

    Hinge loss goes with spectral norms, which bound the gradient by themselves.
    """
    return {"hinge": 0.0, "non-saturating": 1.0, "wasserstein": 10.0}[loss]


def spectral_by_default(loss: Loss, judges_images: bool) -> bool:
    """Spectral norms, except where the gradient penalty is there to do their work, or where the discriminator judges
    corrupted images, which it does better without.
    """
    return loss != "wasserstein" and not judges_images


def critic_terms(loss: Loss, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """What the discriminator pays for each real and each made input: (n,), (m,).

    "hinge": Lim, Ye 2017; "non-saturating": Goodfellow et al. 2014; "wasserstein": Arjovsky et al. 2017.
    """
    if loss == "hinge":
        return relu(1 - real), relu(1 + made)
    if loss == "non-saturating":
        return softplus(-real), softplus(made)
    return -real, made


def maker_term(loss: Loss, made: Tensor) -> Tensor:
    """What the generator pays for each of its inputs (n,)."""
    return softplus(-made) if loss == "non-saturating" else -made


@final
class AdversarialGame(Game):
    """A discriminator against a generator and against corrupted inputs.

    `negatives`: corrupts normal inputs, which the discriminator then learns to tell from intact ones by its second
    number (it must be `twofold`), in hinge loss; where there are any, the game against the generator weighs `contest`
    beside. (In one number with the generator's fakes, which come to lie among real inputs, what it has learnt of
    corrupted ones is undone.) `history`: the share of a batch's fakes that come from earlier generators (Shrivastava et
    al. 2017). `fence`: the generator aims at the number that lies this share of the way from the mean of its fakes' up
    to the mean of real inputs', so that it fills the border of the data and not their midst (Ngo et al. 2019, "Fence
    GAN"); 1 = their midst, as always. `diversity`: weight of a term that grows as the generator's inputs differ less
    from each other than real ones do, 0 where they differ as much (after Yang et al. 2019, equation 2). `penalty`:
    weight of the gradient penalty, R1 (Mescheder et al. 2018) or, for "wasserstein", that of Gulrajani et al. 2017, on
    every eighth batch and eight times as strong. `augment`: changes what the discriminator sees, real or not (Zhao et
    al. 2020).
    """

    earlier: Tensor

    def __init__(
        self,
        discriminator: Discriminator,
        generator: nn.Module,
        code: int,
        *,
        loss: Loss = "hinge",
        penalty: float = 0.0,
        negatives: Corrupt | None = None,
        contest: float = 1.0,
        history: float = 0.0,
        fence: float = 1.0,
        diversity: float = 0.0,
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(discriminator, generator)
        self.discriminator, self.code, self.loss, self.penalty = discriminator, code, loss, penalty
        self.negatives, self.history, self.fence, self.augment = negatives, history, fence, augment
        self.seed, self.diversity, self.contest = seed, diversity, contest
        self.register_buffer("earlier", torch.empty(0))

    def critic_loss(self, batch: Any, step: int) -> Tensor:
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        with torch.no_grad():
            fake = self._with_earlier(self._made(len(batch), batch), random)
        shown = [self._seen(batch, random), self._seen(fake, random)]
        if self.negatives is not None:
            shown.append(self._seen(self.negatives(batch, random), random))
        features = self.discriminator.features(torch.cat(shown)).split([len(part) for part in shown])
        numbers = [self.discriminator.judge(part) for part in features[:2]]
        for_real, for_fake = critic_terms(self.loss, numbers[0], numbers[1])
        value: Tensor = for_real.mean() + for_fake.mean()
        if self.penalty and step % _LAZY == 0:
            value = value + _LAZY * self._penalty(shown[0], shown[1])
        if self.negatives is not None:
            intact, corrupted = (self.discriminator.intact(part) for part in (features[0], features[2]))
            for_intact, for_corrupted = critic_terms("hinge", intact, corrupted)
            value = self.contest * value + for_intact.mean() + for_corrupted.mean()
            self.facts["negative"] = (intact.detach()[:, None] > corrupted.detach()[None]).to(value.dtype).mean()
        self.facts["real"], self.facts["fake"] = numbers[0].detach().mean(), numbers[1].detach().mean()
        self.facts["told apart"] = (
            (numbers[0].detach()[:, None] > numbers[1].detach()[None]).to(value.dtype).mean()
        )  # the AUROC of the batch
        self.facts["variety"] = variety(fake, batch)
        return value

    def maker_loss(self, batch: Any, step: int) -> Tensor:
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + 2**40 + step)
        made = self._made(len(batch), batch)
        numbers = self.discriminator(self._seen(made, random))
        value = maker_term(self.loss, numbers).mean()
        if self.fence < 1:
            with torch.no_grad():
                real = self.discriminator(batch).mean()
                aim = numbers.mean() + self.fence * (real - numbers.mean())
            value = (numbers - aim).abs().mean()
        if self.diversity:
            value = value + self.diversity * relu(1 - _apart(made) / _apart(batch).clamp(min=1e-12))
        return value

    def _made(self, n: int, like: Tensor) -> Tensor:
        made: Tensor = self.maker(torch.randn(n, self.code, device=like.device, dtype=like.dtype))
        return made

    def _seen(self, x: Tensor, random: torch.Generator) -> Tensor:
        return x if self.augment is None else self.augment(x, random)

    def _with_earlier(self, fake: Tensor, random: torch.Generator) -> Tensor:
        """The fakes, some of them replaced by earlier ones, which the newest then replace."""
        if not self.history:
            return fake
        if len(self.earlier) < _KEPT * len(fake):
            self.earlier = torch.cat([self.earlier.reshape(-1, *fake.shape[1:]).to(fake), fake])
            return fake
        n = int(self.history * len(fake))
        places = torch.randperm(len(self.earlier), generator=random)[:n].to(fake.device)
        mixed = torch.cat([self.earlier[places], fake[n:]])
        self.earlier[places] = fake[:n]
        return mixed

    def _penalty(self, real: Tensor, made: Tensor) -> Tensor:
        if self.loss == "wasserstein":
            n = min(len(real), len(made))
            share = torch.rand(n, *[1] * (real.ndim - 1), device=real.device, dtype=real.dtype)
            point = (share * real[:n] + (1 - share) * made[:n]).detach().requires_grad_(True)
        else:
            point = real.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(self.discriminator(point).sum(), point, create_graph=True)
        squares: Tensor = slope.flatten(1).square().sum(1)
        if self.loss == "wasserstein":
            return self.penalty * ((squares + 1e-12).sqrt() - 1).square().mean()
        return 0.5 * self.penalty * squares.mean()


def _apart(x: Tensor) -> Tensor:
    """The mean absolute difference of each input and the next."""
    return (x - x.roll(1, 0)).abs().mean()


def augmentation(names: str, shape: tuple[int, ...]) -> Augment | None:
    """Differentiable augmentations joined by "+": "brightness", "translation" (up to an eighth of a side, empty places
    black) and "cutout" (a square of half a side black), after Zhao et al. 2020; None for "none".

    Raises `UsageError` for others, or for inputs that are no images.
    """
    if names == "none":
        return None
    chosen = names.split("+")
    for name in chosen:
        if name not in ("brightness", "translation", "cutout"):
            raise UsageError(f"augmentations are brightness, translation and cutout, or none, but {name!r} came")
    if len(shape) != 3:
        raise UsageError(f"augmentations are for images, but inputs have shape {shape}: use none")

    def changed(x: Tensor, random: torch.Generator) -> Tensor:
        if "brightness" in chosen:
            factor = (0.7 + 0.6 * torch.rand(len(x), 1, 1, 1, generator=random)).to(x)
            x = x * factor
        if "translation" in chosen:
            x = _translated(x, random)
        if "cutout" in chosen:
            x = x * _holes(x, random)
        return x

    return changed


def _translated(x: Tensor, random: torch.Generator) -> Tensor:
    height, width = x.shape[2:]
    tall, wide = max(1, height // 8), max(1, width // 8)
    padded = nn.functional.pad(x, (wide, wide, tall, tall))
    top = torch.randint(0, 2 * tall + 1, (len(x), 1), generator=random) + torch.arange(height)
    left = torch.randint(0, 2 * wide + 1, (len(x), 1), generator=random) + torch.arange(width)
    places = (top[:, :, None] * (width + 2 * wide) + left[:, None]).flatten(1).to(x.device)
    return padded.flatten(2).gather(2, places[:, None].expand(-1, x.shape[1], -1)).reshape(x.shape)


def _holes(x: Tensor, random: torch.Generator) -> Tensor:
    height, width = x.shape[2:]
    top, left = (torch.randint(0, side, (len(x), 1), generator=random) - side // 4 for side in (height, width))
    rows, columns = torch.arange(height)[None], torch.arange(width)[None]
    inside = ((rows >= top) & (rows < top + height // 2))[:, :, None] & (
        (columns >= left) & (columns < left + width // 2)
    )[:, None]
    return (~inside)[:, None].to(x)

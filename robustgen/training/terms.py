"""What an autoencoder is trained on beside its reconstruction error, and what its inputs are spoilt with.

A `Term` is added to the loss: to add a constraint is to add a term.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import Tensor, nn

Corruption = Literal["gaussian", "masking", "salt-and-pepper"]
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)


Term = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(encoder, inputs (n, *shape), their codes (n, k)) -> (n,), to be minimised with the reconstruction error."""


@final
@dataclass(frozen=True)
class AbsoluteCode:
    """weight * mean |code| (sparse coding's L1 penalty; Ng 2011, "Sparse autoencoder")."""

    weight: float

    def __call__(self, encoder: nn.Module, x: Tensor, code: Tensor) -> Tensor:
        return self.weight * code.abs().mean(1)


@final
@dataclass(frozen=True)
class RareCode:
    """weight * mean over the code of KL(rate || the batch's mean of sigmoid(code)) (Ng 2011): each unit rarely on."""

    weight: float
    rate: float = 0.05

    def __call__(self, encoder: nn.Module, x: Tensor, code: Tensor) -> Tensor:
        on = torch.sigmoid(code).mean(0).clamp(1e-6, 1 - 1e-6)
        divergence = self.rate * torch.log(self.rate / on) + (1 - self.rate) * torch.log((1 - self.rate) / (1 - on))
        return self.weight * divergence.mean().expand(len(code))


@final
@dataclass(frozen=True)
class Contraction:
    """weight * ||d code / d x||_F^2 / k (Rifai et al. 2011, "Contractive auto-encoders").

    Exact, one backward pass per value of the code, for codes of at most `exact` values; else Hutchinson's unbiased
    estimate from one random direction, E |v' J|^2 with v of independent signs.
    """

    weight: float
    exact: int = 8

    def __call__(self, encoder: nn.Module, x: Tensor, code: Tensor) -> Tensor:
        point = x.detach().requires_grad_()
        code = encoder(point)
        width = code.shape[1]
        if width <= self.exact:
            directions = list(
                torch.eye(width, dtype=code.dtype, device=code.device).unsqueeze(1).expand(-1, *code.shape)
            )
        else:
            directions = [torch.randint(0, 2, code.shape, device=code.device).to(code.dtype) * 2 - 1]
        total = torch.zeros_like(code[:, 0])
        for direction in directions:
            (slope,) = torch.autograd.grad(code, point, direction, create_graph=True)
            total = total + slope.flatten(1).square().sum(1)
        return self.weight * total / width


def corruption(kind: Corruption, amount: float) -> Callable[[Tensor], Tensor]:
    """Spoils inputs in [0, 1], drawing from torch's global generators (Vincent et al. 2010, section 3.3).

    `gaussian`: noise of standard deviation `amount`; `masking`: a share `amount` of values becomes 0;
    `salt-and-pepper`: that share becomes 0 or 1.
    """
    if kind == "gaussian":
        return lambda x: x + amount * torch.randn_like(x)
    if kind == "masking":
        return lambda x: x * (torch.rand_like(x) >= amount)

    def salted(x: Tensor) -> Tensor:
        drawn = torch.rand_like(x)
        return torch.where(drawn < amount, (drawn < amount / 2).to(x.dtype), x)

    return salted

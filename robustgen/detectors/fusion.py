"""Several detectors, brought to one unit on held-out inputs and combined."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.data.hold_out import hold_out
from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.evidence import Evidence
from robustgen.detectors.standardise import Scale
from robustgen.errors import UsageError
from robustgen.models.gan import convolved
from robustgen.registry import suggestion
from robustgen.training.descent import TrainingProgress

Combine = Literal["harmonic", "fisher", "smallest", "deviations"]

_TABLES = "knn,k-means clusters=20 smallest=0.03,gaussian-mixture,pca scores=likelihood"
_IMAGES = "autoencoder,gan scores=discriminator+knn,gan network=pooled scores=discriminator+knn"


@final
class FusionDetector(Detector):
    """What several detectors say together. Each is fitted on most training inputs, and its scores are turned into
    p-values by those of the rest (about a tenth; a third where there are few), then it is fitted again on all of them.

    `members`: names of detectors, separated by commas, each followed by its options as NAME=VALUE, as in "knn k=3,pca";
    "auto": for images an autoencoder and the discriminators of two GANs, else neighbours, clusters and two densities.
    `combine`: "harmonic" = log mean 1 / p (the harmonic mean p-value, Wilson 2019: a smooth form of the smallest),
    "fisher" = the sum of -log p (Fisher 1932), "smallest" = the largest -log p (Tippett 1931), "deviations" = the sum
    of robust deviations from the held-out median; "auto" = deviations for the members that images get by "auto", else
    harmonic. `refit`: False leaves out the second fit. The members get this seed. Raises `UsageError` for members that
    do not exist.
    """

    scale: Scale = "none"  # each member has its own
    version = 2

    def __init__(
        self, members: str = "auto", combine: Combine | Literal["auto"] = "auto", refit: bool = True, seed: int = 0
    ) -> None:
        super().__init__()
        if combine not in (known := ("auto", *get_args(Combine))):
            raise UsageError(suggestion(combine, known, "combination"))
        self.members, self.combine, self.refit, self.seed = members, combine, refit, seed
        made = self._made()
        self.differentiable = all(member.differentiable for member in made)

    def _made(self, images: bool = False) -> list[Detector]:
        from robustgen.detectors.making import accepts, make

        chosen = (_IMAGES if images else _TABLES) if self.members == "auto" else self.members
        made = []
        for entry in chosen.split(","):
            name, *pairs = entry.split() or [""]
            options: dict[str, Any] = {"seed": self.seed} if accepts(name, "seed") else {}
            for pair in pairs:
                option, equals, text = pair.partition("=")
                if not equals:
                    raise UsageError(f"options of a member are written NAME=VALUE, but {pair!r} came after {name}")
                options[option.replace("-", "_")] = _value(text)
            made.append(make(name, options))
        return made

    def _build(self, shape: tuple[int, ...]) -> None:
        images = convolved(shape)
        made = self._made(images)
        for member in made:
            member.to(self._device)._prepare(shape)
        by_shape: Combine = "deviations" if images and self.members == "auto" else "harmonic"
        self.combined_by: Combine = by_shape if self.combine == "auto" else self.combine
        self.parts = nn.ModuleList(made)
        self.evidence = nn.ModuleList(Evidence() for _ in made).to(self._device)

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        # 50 held-out inputs where a tenth would be fewer, but never more than a third
        kept, held = hold_out(rows, every=min(10, max(3, len(rows) // 50)), seed=self.seed, device=self._device)
        files = [self._file(f"{place}-{part}") for place in range(len(self.parts)) for part in ("most", "all")]
        for (member, evidence), most, everything in zip(self._pairs(), files[::2], files[1::2], strict=True):
            member.fit(kept, progress=progress, checkpoint=most)
            with torch.no_grad():
                evidence.prepare(torch.cat([member.score(x.to(self._device)) for x in held.batches(500)]))
            if self.refit:
                member.fit(rows, progress=progress, checkpoint=everything)
        for file in files:
            if file is not None:
                file.unlink(missing_ok=True)

    def _file(self, part: str) -> Path | None:
        """Where the training of a part keeps its state, beside that of the whole; all stay until the last is done."""
        own = self._checkpoint
        return None if own is None else own.with_name(f"{own.stem}.{part}{own.suffix}")

    def _pairs(self) -> list[tuple[Detector, Evidence]]:
        return cast(list[tuple[Detector, Evidence]], list(zip(self.parts, self.evidence, strict=True)))

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return self.joined([cast(Detector, member).score(x, condition) for member in self.parts])

    def joined(self, scores: Sequence[Float[Tensor, " n"]]) -> Float[Tensor, " n"]:
        """The score that belongs to the members' own, in their order."""
        return joined(self.combined_by, [evidence for _, evidence in self._pairs()], scores)


def joined(
    combine: Combine, evidence: Sequence[Evidence], scores: Sequence[Float[Tensor, " n"]]
) -> Float[Tensor, " n"]:
    """Scores of several detectors, each with what is known of it, as one."""
    pairs = zip(evidence, scores, strict=True)
    if combine == "deviations":
        return torch.stack([each.deviations(score) for each, score in pairs]).sum(0)
    return _COMBINED[combine](torch.stack([each(score) for each, score in pairs]))


_COMBINED: dict[str, Callable[[Tensor], Tensor]] = {
    "harmonic": lambda evidence: evidence.logsumexp(0) - math.log(len(evidence)),
    "fisher": lambda evidence: evidence.sum(0),
    "smallest": lambda evidence: evidence.amax(0),
}


def _value(text: str) -> Any:
    """A number, true, false, none or a word."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)

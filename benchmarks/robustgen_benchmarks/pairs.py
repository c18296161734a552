"""Does a discriminator of image pairs see that a condition and a photo do not belong together? Taught and untaught.

The conditional GAN of image pairs is fitted twice: matching-aware, and as published (pix2pix), whose discriminator
never meets a mismatch. Both judge test pairs and mismatches made of them: the condition of another input (of another
class or of the same one, where there are classes), and their own moved by two pixels or by one; AUROC of every reading.

Data: "edges" (edge maps beside Fashion-MNIST), "emoji" (the same emoji by two artists, from $ROBUSTGEN_EXTRA_DATA,
32 x 32 on white; all variants of one emoji are on one side of the split), "tiles" (masks beside photos of defective
magnetic tiles, 48 x 48; all shots of one tile on one side).

    python -m robustgen_benchmarks.pairs --data edges --seeds 3 --preset fast --out pairs.json --pictures pictures/

The JSON is written after every fit, and what it holds already is not run again.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
import zipfile
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from robustgen.data.load import load
from robustgen.detectors.pair_gan import MATCHING, PairGANDetector
from robustgen.metrics import Array, auroc
from robustgen.training.image_pairs import moved
from robustgen_benchmarks.results_file import ResultsFile

OPTIONS: dict[str, dict[str, Any]] = {"edges": {}, "emoji": {"reach": 0, "scores": "patches+l1"}, "tiles": {}}
"""Two artists do not draw to the pixel, so that a pair of emoji which is moved by three still fits."""


class Pairs(NamedTuple):
    """Training pairs, test pairs (n, c, h, w), the classes of the latter if there are any, the condition's channels."""

    train: Tensor
    test: Tensor
    y: Tensor | None
    channels: int


def edges(limit: int) -> Pairs:
    """Fashion-MNIST beside its edge maps."""
    source = load("edges:fashion-mnist")
    train, test = (source.read(source.spread(split, n)) for split, n in (("train", limit), ("test", 2000)))  # type: ignore[arg-type]
    return Pairs(train.x, test.x, test.y, 1)


def emoji(limit: int) -> Pairs:
    """Noto's drawing as the condition of Twemoji's."""
    from PIL import Image

    folder = Path(os.environ["ROBUSTGEN_EXTRA_DATA"]) / "emoji_pairs"
    pictures: dict[str, dict[str, Tensor]] = {"noto": {}, "twemoji": {}}
    for path in sorted(folder.glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                artist = next((artist for artist in pictures if f"{artist}/" in f"{path.stem}/{name}"), None)
                if artist and name.endswith(".png"):
                    image = Image.open(io.BytesIO(archive.read(name))).convert("RGBA")
                    white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
                    small = white.resize((32, 32), Image.Resampling.BILINEAR)
                    pixels = np.asarray(small, np.float32).transpose(2, 0, 1) / 255
                    pictures[artist][Path(name).stem] = torch.from_numpy(pixels.copy())
    names = sorted(set(pictures["noto"]) & set(pictures["twemoji"]))
    bases = sorted({name.split("-")[0] for name in names})
    random = np.random.default_rng(0)
    held = set(random.permutation(bases)[: len(bases) // 4].tolist())
    x = torch.stack([torch.cat([pictures["noto"][name], pictures["twemoji"][name]]) for name in names])
    out = torch.tensor([name.split("-")[0] in held for name in names])
    return Pairs(x[~out][:limit], x[out], None, 3)


def tiles(limit: int) -> Pairs:
    """The mask of a defect as the condition of its photo."""
    found = next((Path(os.environ["ROBUSTGEN_EXTRA_DATA"]) / "magnetic_tile").glob("*.npz"))
    with np.load(found) as data:
        rows = np.flatnonzero(data["masks"].any(1))
        photo = torch.from_numpy(data["images"][rows].astype(np.float32) / 255)
        mask = torch.from_numpy(np.unpackbits(data["masks"][rows], axis=1).reshape(photo.shape).astype(np.float32))
        group = data["group_hint"][rows]
    size = (48, 48)
    small = torch.cat(
        [
            interpolate(mask[:, None], size=size, mode="area").ceil(),
            interpolate(photo[:, None], size=size, mode="area"),
        ],
        1,
    )
    names = np.unique(group)
    held = np.isin(group, np.random.default_rng(0).permutation(names)[: len(names) // 4])
    out = torch.from_numpy(held)
    return Pairs(small[~out][:limit], small[out], None, 1)


def mismatches(pairs: Pairs) -> dict[str, Tensor]:
    """Test pairs with a condition that is not theirs, by kind."""
    x, y, channels = pairs.test, pairs.y, pairs.channels
    random = torch.Generator().manual_seed(0)

    def exchanged(rows: Tensor) -> Tensor:
        return torch.cat([x[rows, :channels], x[:, channels:]], 1)

    def drawn(allowed: Tensor) -> Tensor:
        allowed.fill_diagonal_(False)
        return torch.multinomial(allowed.double(), 1, generator=random)[:, 0]

    found = dict[str, Tensor]()
    if y is not None:
        same = y[:, None] == y[None]
        found |= {"other class": exchanged(drawn(~same)), "same class": exchanged(drawn(same.clone()))}
    else:
        found["other input"] = exchanged(drawn(torch.ones(len(x), len(x), dtype=torch.bool)))
    for step in (2, 1):
        ways = [torch.cat([moved(x[i::4, :channels], i, step), x[i::4, channels:]], 1) for i in range(4)]
        found[f"moved by {step}"] = torch.cat(ways)
    return found


def read(detector: PairGANDetector, x: Tensor) -> dict[str, Array]:
    """Every reading and the score."""
    with torch.no_grad():
        parts = [detector.panel(part) | {"score": detector.score(part)} for part in x.split(250)]
    return {name: torch.cat([part[name] for part in parts]).double().numpy() for name in parts[0]}


def draw(detector: PairGANDetector, pairs: Pairs, odd: dict[str, Tensor], path: Path) -> None:
    """A sheet of pairs, the photos that the generator makes, and heat-maps of pairs and mismatches."""
    from robustgen.report.translations import translation_sheet

    x, channels = pairs.test[:8], pairs.channels
    first = next(iter(odd))
    heat, wrong = detector.explain(x).sum(1, keepdim=True), detector.explain(odd[first][:8]).sum(1, keepdim=True)
    low, high = float(torch.minimum(heat, wrong).min()), float(torch.maximum(heat, wrong).max())
    rows: list[tuple[str, Any]] = [("condition", x[:, :channels]), ("photo made", detector.translate(x))]
    rows += [("photo", x[:, channels:]), ("heat, fits", (heat - low) / (high - low))]
    rows += [(first, odd[first][:8, :channels]), ("heat, misfits", (wrong - low) / (high - low))]
    translation_sheet(rows, "pairs").savefig(path, dpi=110)


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table: means over the seeds."""
    kinds = list(dict.fromkeys(kind for result in results for kind in result["auroc"]))
    lines = [
        f"| data | preset | discriminator | reading | {' | '.join(kinds)} | CPU s |",
        f"|---|{'---|' * (len(kinds) + 4)}",
    ]
    groups = dict.fromkeys((r["data"], r["preset"], r["matching"]) for r in results)
    for data, preset, matching in groups:
        own = [r for r in results if (r["data"], r["preset"], r["matching"]) == (data, preset, matching)]
        for reading in own[0]["auroc"][next(iter(own[0]["auroc"]))]:
            cells = [f"{mean(r['auroc'][k][reading] for r in own):.3f}" if k in own[0]["auroc"] else "" for k in kinds]
            seconds = f"{mean(r['cpu_seconds'] for r in own):.0f}"
            lines.append(f"| {data} | {preset} | {matching} | {reading} | {' | '.join(cells)} | {seconds} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["edges"], choices=("edges", "emoji", "tiles"))
    parser.add_argument("--matching", nargs="+", default=list(MATCHING), choices=MATCHING)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--train", type=int, default=8000, help="training pairs at most")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--pictures", type=Path, help="folder for drawn pairs and heat-maps")
    parser.add_argument("--out", type=Path, help="JSON file for the results, and to go on from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    command = (
        f"python -m robustgen_benchmarks.pairs --data {' '.join(given.data)} --matching {' '.join(given.matching)} "
        f"--preset {given.preset} --train {given.train} --seeds {given.seeds}"
    )
    file = ResultsFile(given.out, command)
    done = file.done("data", "preset", "matching", "seed")
    for name in given.data:
        pairs = {"edges": edges, "emoji": emoji, "tiles": tiles}[name](given.train)
        odd = mismatches(pairs)
        for seed in range(given.seeds):
            for matching in given.matching:
                if (name, given.preset, matching, seed) in done:
                    continue
                began = time.process_time()
                detector = PairGANDetector(pairs.channels, matching, preset=given.preset, seed=seed, **OPTIONS[name])
                detector.fit(pairs.train)
                seconds = time.process_time() - began
                normal = read(detector, pairs.test)
                scores = {kind: read(detector, x) for kind, x in odd.items()}
                found = {kind: {k: auroc(normal[k], v[k]).value for k in normal} for kind, v in scores.items()}
                result = {
                    "data": name,
                    "preset": given.preset,
                    "matching": matching,
                    "seed": seed,
                    "options": OPTIONS[name],
                }
                result["auroc"] = found
                sizes = {"n_train": len(pairs.train), "n_test": len(pairs.test), "cpu_seconds": seconds}
                sys.stderr.write(f"{name} {matching} seed {seed}: {found} in {seconds:.0f} s\n")
                if given.pictures is not None:
                    given.pictures.mkdir(parents=True, exist_ok=True)
                    draw(detector, pairs, odd, given.pictures / f"{name}_{matching}_{seed}.png")
                file.add(result | sizes)
    sys.stdout.write(table(file.results))


if __name__ == "__main__":
    main()

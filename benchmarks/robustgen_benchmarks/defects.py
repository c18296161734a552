"""Real defects on magnetic tiles (Huang, Qiu, Yuan 2020), found and located: robustgen's detectors beside PyOD's and
the autoencoders of the literature, on the same inputs.

Detectors are fitted on tiles without a defect and score the others. Shots of one tile under several lights stay on one
side: a part of the tiles that have no defect in any shot is for training, all other shots are for the test. A seed
draws these tiles anew and is the detectors' own seed too. Image AUROC: shots with a defect against shots without.
Pixel AUROC: all pixels of the test shots, by the masks at full size; maps come from `explain`, or are residuals.

    pip install pyod
    python -m robustgen_benchmarks.defects --seeds 3 --out defects.json

The data are read from the folder in ROBUSTGEN_EXTRA_DATA, or --data FILE.npz (images, masks, labels, classes and
group_hint, 96 x 96). The JSON is written after every detector, and what it holds already is not run again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from robustgen.artifacts import digest
from robustgen.data.hold_out import hold_out
from robustgen.data.rows import as_rows
from robustgen.detectors.image_differences import dissimilarity
from robustgen.detectors.making import accepts, make
from robustgen.detectors.reconstruction import ReconstructionDetector
from robustgen.metrics import auroc
from robustgen.models.autoencoder import autoencoder
from robustgen.runtime import seeded
from robustgen.training.descent import Recipe, descend
from robustgen_benchmarks import pyod_peers
from robustgen_benchmarks.results_file import ResultsFile

FULL, CODE = 96, 100
PYOD = {"PCA": "pca", "KNN": "knn", "AutoEncoder": "auto_encoder"}


class Found(NamedTuple):
    """Of the test shots: scores (n,), and maps (n, h, w) where the method has them."""

    scores: Tensor
    maps: Tensor | None


Method = Callable[[Tensor, Tensor, int], dict[str, Found]]
"""(training images, test images, seed) -> what each variant of the method finds"""


class Tiles(NamedTuple):
    """Shots (n, 1, size, size) in [0, 1], their masks (n, 96, 96), labels (n,) with 0 = no defect, and tiles (n,)."""

    x: Tensor
    masks: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    classes: list[str]
    tiles: np.ndarray[Any, Any]

    def train(self, seed: int) -> np.ndarray[Any, Any]:
        """(n,) whether a shot is for training: seven tenths of the tiles of which no shot shows a defect."""
        clean = np.setdiff1d(self.tiles, self.tiles[self.labels > 0])
        drawn = np.random.default_rng(seed).permutation(clean)[: round(0.7 * len(clean))]
        return np.isin(self.tiles, drawn)


def read(path: Path, size: int) -> Tiles:
    """The tiles, averaged down to `size` x `size`."""
    with np.load(path, allow_pickle=False) as file:
        x = torch.from_numpy(file["images"]).float()[:, None] / 255
        masks = np.unpackbits(file["masks"], axis=1)[:, : FULL * FULL].reshape(-1, FULL, FULL).astype(bool)
        labels, classes, tiles = file["labels"], file["classes"].tolist(), file["group_hint"]
    return Tiles(interpolate(x, (size, size), mode="area"), masks, labels, classes, tiles)


def ours(name: str, options: dict[str, Any], scores: tuple[str, ...] = ()) -> Method:
    """A robustgen detector; of one with an autoencoder also other `scores`, read off the same network."""

    def run(x: Tensor, test: Tensor, seed: int) -> dict[str, Found]:
        own = options | ({"seed": seed} if accepts(name, "seed") else {})
        detector = make(name, own).fit(x)
        found = {"": _judged(detector, test)}
        for score in scores:
            other = make(name, own | {"scores": score})
            assert isinstance(other, ReconstructionDetector)
            assert isinstance(detector, ReconstructionDetector)
            other.restore(tuple(x.shape[1:]), other_state(other, detector, x, seed))
            found[f":scores={score}"] = _judged(other, test)
        return found

    return run


def other_state(
    other: ReconstructionDetector, detector: ReconstructionDetector, x: Tensor, seed: int
) -> dict[str, Tensor]:
    """The state of `other`, whose score has other parts, with the network of `detector`: as if fitted by itself."""
    other._build(tuple(x.shape[1:]))
    other.autoencoder.load_state_dict(detector.autoencoder.state_dict())
    other.typical = detector.typical
    kept, held = hold_out(as_rows(x), seed=seed)
    with torch.no_grad():
        other.combination.prepare(other._views(kept), other._views(held), seed)
    return dict(other.state_dict())


def _judged(detector: Any, test: Tensor) -> Found:
    with torch.no_grad():
        scores = torch.cat([detector.score(part) for part in test.split(100)])
    return Found(scores, torch.cat([detector.explain(part) for part in test.split(50)]).sum(1))


def published(loss: str, epochs: int, batch_size: int) -> Method:
    """AE-L2 and AE-SSIM (Bergmann et al. 2019): an autoencoder with a code of 100, its residual the map, the largest
    the score.
    """

    def residual(x: Tensor, back: Tensor) -> Tensor:
        return (x - back).square() if loss == "l2" else dissimilarity(x, back)

    def run(x: Tensor, test: Tensor, seed: int) -> dict[str, Found]:
        with seeded(seed):
            network = autoencoder("convolutional", tuple(x.shape[1:]), CODE)
        recipe = Recipe(epochs=epochs, batch_size=batch_size, weight_decay=0.0, seed=seed)
        descend(
            network,
            lambda model, batch, step: residual(batch, model(batch)).flatten(1).mean(1),
            lambda shuffle: as_rows(x).batches(batch_size, shuffle),
            len(x),
            recipe,
            device=torch.device("cpu"),
        )
        with torch.no_grad():
            maps = torch.cat([residual(part, network(part)).sum(1) for part in test.split(100)])
        return {"": Found(maps.flatten(1).amax(1), maps)}

    return run


def pyod(name: str) -> Method:
    """A PyOD detector with its own defaults, on flattened images; its autoencoder's map is the squared residual."""
    kind: Any = getattr(import_module(f"pyod.models.{PYOD[name]}"), name)

    def run(x: Tensor, test: Tensor, seed: int) -> dict[str, Found]:
        options = {"AutoEncoder": {"verbose": 0}, "KNN": {}, "PCA": {}}[name]
        detector = kind(**options, **({"random_state": seed} if name != "KNN" else {}))
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            detector.fit(x.flatten(1).numpy())
            scores = torch.from_numpy(np.asarray(detector.decision_function(test.flatten(1).numpy())))
        maps = None
        if name == "AutoEncoder":
            flat = test.flatten(1).double().numpy()
            scaled = torch.from_numpy((flat - detector.X_mean) / detector.X_std).float()
            with torch.no_grad():
                maps = (scaled - detector.model(scaled)).square().reshape(test[:, 0].shape)
        return {"": Found(scores, maps)}

    return run


def pyod_gan(name: str) -> Method:
    """One of PyOD's generative adversarial networks with its own defaults, on flattened images; they have no map."""

    def run(x: Tensor, test: Tensor, seed: int) -> dict[str, Found]:
        scores = pyod_peers.fitted(name, x.flatten(1).numpy(), seed)(test.flatten(1).numpy())
        return {"": Found(torch.from_numpy(np.asarray(scores)), None)}

    return run


def measure(
    found: Found, labels: np.ndarray[Any, Any], masks: np.ndarray[Any, Any], classes: list[str]
) -> dict[str, Any]:
    """Image and pixel AUROC, over all defects and for each kind of defect."""
    scores = found.scores.double().numpy()
    image = {kind: auroc(scores[labels == 0], scores[labels == i]).value for i, kind in enumerate(classes) if i}
    result: dict[str, Any] = {"image": auroc(scores[labels == 0], scores[labels > 0]).value, "image_by_kind": image}
    if found.maps is not None:
        maps = interpolate(found.maps[:, None].float(), (FULL, FULL), mode="bilinear")[:, 0].numpy()
        result["pixel"] = auroc(maps[~masks], maps[masks]).value
        result["pixel_by_kind"] = {}
        for i, kind in enumerate(classes):
            if i:  # within the shots that show this kind
                one, mask = maps[labels == i], masks[labels == i]
                result["pixel_by_kind"][kind] = auroc(one[~mask], one[mask]).value
    return result


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table: means over the seeds, best image AUROC first."""
    kinds = list(results[0]["image_by_kind"])
    rows = []
    for name in dict.fromkeys(result["detector"] for result in results):
        own = [result for result in results if result["detector"] == name]
        image = [result["image"] for result in own]
        pixel = [result["pixel"] for result in own if "pixel" in result]
        cells = [_cell(image), _cell(pixel)]
        cells += [f"{mean(result['image_by_kind'][kind] for result in own):.3f}" for kind in kinds]
        rows.append((mean(image), f"| {name} | {' | '.join(cells)} | {mean(r['cpu_seconds'] for r in own):.0f} |"))
    head = ["detector", "image AUROC", "pixel AUROC", *(f"image: {kind}" for kind in kinds), "CPU s"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(row for _, row in sorted(rows, reverse=True))]
    return "\n".join(lines) + "\n"


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{mean(values):.3f}" + (f" +- {stdev(values):.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the .npz; by default magnetic_tile/ in ROBUSTGEN_EXTRA_DATA")
    parser.add_argument("--size", type=int, default=48, help="of the images that detectors see")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30, help="of every autoencoder but PyOD's")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--detectors", nargs="*", help="some of those in the table only")
    parser.add_argument("--out", type=Path, help="JSON file for the results, and to go on from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = given.data or Path(os.environ.get("ROBUSTGEN_EXTRA_DATA", ".")) / "magnetic_tile/magnetic_tile_96.npz"
    tiles = read(path, given.size)
    training = {"epochs": given.epochs, "batch_size": given.batch_size}
    methods: dict[str, Method] = {
        "pca": ours("pca", {}),
        "k-means": ours("k-means", {}),
        "PyOD PCA": pyod("PCA"),
        "PyOD KNN": pyod("KNN"),
        "PyOD AutoEncoder": pyod("AutoEncoder"),
        "autoencoder": ours("autoencoder", training, ("l2", "ssim", "knn")),
        "denoising-autoencoder": ours("denoising-autoencoder", training, ("l2", "ssim")),
        "gan": ours("gan", {}),
        "gan:negatives=paste+noise+blur": ours("gan", {"negatives": "paste+noise+blur"}),
        "style-gan": ours("style-gan", {}),
        "AE-L2": published("l2", **training),
        "AE-SSIM": published("ssim", **training),
        **{f"PyOD {name}": pyod_gan(name) for name in pyod_peers.GANS},
    }
    command = (
        f"python -m robustgen_benchmarks.defects --seeds {given.seeds} --size {given.size} --epochs {given.epochs} "
        f"--batch-size {given.batch_size}"
    )
    file = ResultsFile(given.out, command, "pyod", data_sha256=digest(path.read_bytes()))
    done = file.done("method", "seed", "size")
    for seed in range(given.seeds):
        train = tiles.train(seed)
        for name in given.detectors or methods:
            if (name, seed, given.size) in done:
                continue
            began = time.process_time()
            found = methods[name](tiles.x[train], tiles.x[~train], seed)
            seconds = time.process_time() - began
            rows = []
            for variant, one in found.items():
                values = measure(one, tiles.labels[~train], tiles.masks[~train], tiles.classes)
                values |= {"detector": name + variant, "method": name, "seed": seed, "size": given.size}
                rows.append(values | {"n_train": int(train.sum()), "cpu_seconds": seconds})
                sys.stderr.write(f"seed {seed} {name}{variant}: {values['image']:.3f} {values.get('pixel', 0):.3f}\n")
            file.add(*rows)
    sys.stdout.write(table(file.results))


if __name__ == "__main__":
    main()

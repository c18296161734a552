"""What a cycle GAN between two domains is good for: taking attacks away, seeing them, and one source's digits for
another's.

"purifier": the other domain is what PGD (Linf 0.1, rounded to bytes) makes of training inputs against a classifier,
half of it on the whole image and half limited to the object (pixels above 0; the background of Fashion-MNIST is
exactly 0, so that any change there is seen). Told are the classifier's accuracy before and after the translation to
the normal domain, and AUROC of every reading, of inputs that fool the classifier (all, for controls) against clean
ones: for the attacks of the training, for others, for random signs of the same size, and for an adaptive attacker who
takes gradients through translator and classifier.

"usps": MNIST and USPS, unpaired. Told are the accuracy of a classifier of MNIST on USPS before and after, and how
well the cycle error, on the translation as it is and on the coarse one, tells foreign inputs from MNIST's.

"emoji": drawings of two artists, 32 x 32 in colour, of half of the emoji by one, of the other half by the other, so
that no pair is in training. Told are, for emoji that were held out with all their variants, the share of Twemoji's that
a classifier of the two artists takes for Noto's, and their mean absolute difference from Noto's drawing of the same
emoji, before and after the translation.

    python -m robustgen_benchmarks.cycles --part purifier --victims victims/ --preset default --out cycles.json

The JSON is written after every fit, and what it holds already is not run again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from robustgen.attacks.build import make
from robustgen.data.load import load
from robustgen.detectors.cycle_gan import CycleGANDetector
from robustgen.metrics import Array, auroc
from robustgen.threat import Norm, ThreatModel
from robustgen.training.classifier import train as train_classifier
from robustgen.training.descent import Recipe
from robustgen_benchmarks.pairs import emoji as drawings
from robustgen_benchmarks.results_file import ResultsFile
from robustgen_benchmarks.victims import predictions, victims

EPS = 0.1


def in_bytes(x: Tensor) -> Tensor:
    """Values as an image file keeps them."""
    return (255 * x).round() / 255


def attacked(network: nn.Module, x: Tensor, y: Tensor, name: str, norm: Norm, eps: float) -> Tensor:
    """One of robustgen's attacks on whole images, in bytes."""
    return in_bytes(make(name, ThreatModel(norm, eps), {})(network, x, y))


def on_object(network: nn.Module, x: Tensor, y: Tensor, steps: int = 20) -> Tensor:
    """PGD of size `EPS` (steps of a fifth of it, from a random start) on pixels above 0 alone, in bytes."""
    random = torch.Generator().manual_seed(0)
    made = []
    for part, label in zip(x.split(250), y.split(250), strict=True):
        inside = (part > 0).float()
        z = (part + inside * EPS * (2 * torch.rand(part.shape, generator=random) - 1)).clamp(0, 1)
        for _ in range(steps):
            z.requires_grad_(True)
            loss = nn.functional.cross_entropy(network(z), label, reduction="sum")
            (slope,) = torch.autograd.grad(loss, z)
            change = (z.detach() + inside * 0.2 * EPS * slope.sign() - part).clamp(-EPS, EPS)
            z = (part + change).clamp(0, 1)
        made.append(in_bytes(z.detach()))
    return torch.cat(made)


class Purified(nn.Module):
    """The classifier behind the translator."""

    def __init__(self, detector: CycleGANDetector, network: nn.Module) -> None:
        super().__init__()
        self.detector, self.network = detector, network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.detector.translate(x))
        return logits


def read(detector: CycleGANDetector, x: Tensor) -> dict[str, Array]:
    """Every reading, and the cycle error on the translation as it is."""
    found = []
    with torch.no_grad():
        for part in x.split(200):
            back = detector.translate(detector.translate(part, "other"))
            found.append(detector.panel(part) | {"cycle as it is": (back - part).abs().flatten(1).mean(1)})
    return {name: torch.cat([part[name] for part in found]).double().numpy() for name in found[0]}


def purified(detector: CycleGANDetector, x: Tensor) -> Tensor:
    """Inputs as of the normal domain."""
    with torch.no_grad():
        return torch.cat([detector.translate(part) for part in x.split(200)])


def purifier(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Clean and adversarial Fashion-MNIST."""
    source = load("fashion-mnist")
    network = victims(source, given.victims)["plain"].eval()
    train, test = source.read(source.spread("train", given.train)), source.read(source.spread("test", given.test))
    assert train.y is not None
    assert test.y is not None
    third, x, y = len(train) // 3, test.x, test.y
    whole = attacked(network, train.x[:third], train.y[:third], "pgd", "linf", EPS)
    inside = on_object(network, train.x[third : 2 * third], train.y[third : 2 * third])
    other, normal = torch.cat([whole, inside]), train.x[2 * third :]
    detector = CycleGANDetector("divergence", preset=given.preset, seed=seed)
    detector.watch(network)
    began = time.process_time()
    label = torch.cat([torch.zeros(len(normal)), torch.ones(len(other))]).long()
    detector.fit(TensorDataset(torch.cat([normal, other]), label))
    seconds = time.process_time() - began
    through = Purified(detector, network).eval()
    signs = 2 * torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) - 1
    noisy = in_bytes((x + EPS * signs).clamp(0, 1))
    kinds = {
        "clean": x,
        "PGD 0.1 (in training)": attacked(network, x, y, "pgd", "linf", EPS),
        "PGD 0.1 on the object (in training)": on_object(network, x, y),
        "PGD 0.05": attacked(network, x, y, "pgd", "linf", 0.05),
        "FGSM 0.1": attacked(network, x, y, "fgsm", "linf", EPS),
        "APGD L2 1.5": attacked(network, x, y, "apgd-ce", "l2", 1.5),
        "adaptive PGD 0.1, through translator and classifier": attacked(through, x, y, "pgd", "linf", EPS),
        "random signs 0.1 (control)": noisy,
        "random signs 0.1 on the object (control)": torch.where(x > 0, noisy, x),
        "MNIST (foreign)": load("mnist").read(load("mnist").spread("test", given.test)).x,
    }
    clean, rows = read(detector, x), {}
    for kind, z in kinds.items():
        before, after = predictions(network, z), predictions(network, purified(detector, z))
        row: dict[str, Any] = {}
        if "foreign" not in kind:
            row = {"accuracy": float((before == y).double().mean()), "purified": float((after == y).double().mean())}
        if kind != "clean":
            fooled = (before != y) & (predictions(network, x) == y)
            if "adaptive" in kind:
                fooled = (after != y) & (predictions(network, x) == y)
            chosen = z if "control" in kind or "foreign" in kind else z[fooled]
            row |= {"n": len(chosen), "auroc": compared(clean, read(detector, chosen))}
        rows[kind] = row
        sys.stderr.write(f"{kind}: {row}\n")
    if given.pictures is not None:
        shown = kinds["PGD 0.1 on the object (in training)"][:8], kinds["PGD 0.1 (in training)"][:8]
        draw(
            given.pictures / f"purifier_{seed}.png",
            detector,
            {"clean": x[:8], "on object": shown[0], "whole": shown[1]},
        )
    return {"cpu_seconds": seconds, "n_train": [len(normal), len(other)], "n_test": len(x), "kinds": rows}


def usps(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Digits of two sources."""
    mnist = load("mnist")
    theirs = load(str(Path(os.environ["ROBUSTGEN_EXTRA_DATA"]) / "usps" / "usps.npz"), size=(28, 28))
    train, test = mnist.read(mnist.spread("train", given.train)), mnist.read(mnist.spread("test", given.test))
    other, held = theirs.read(theirs.spread("train", given.train)), theirs.read(theirs.spread("test", given.test))
    assert test.y is not None
    assert held.y is not None
    network = train_classifier(mnist, recipe=Recipe(epochs=1)).model.network.eval()
    detector = CycleGANDetector("cycle+critic", preset=given.preset, seed=seed)
    began = time.process_time()
    label = torch.cat([torch.zeros(len(train)), torch.ones(len(other))]).long()
    detector.fit(TensorDataset(torch.cat([train.x, other.x]), label))
    seconds = time.process_time() - began
    accuracy = {
        "MNIST": float((predictions(network, test.x) == test.y).double().mean()),
        "MNIST as of USPS and back": float(
            (predictions(network, purified(detector, to_other(detector, test.x))) == test.y).double().mean()
        ),
        "USPS": float((predictions(network, held.x) == held.y).double().mean()),
        "USPS as of MNIST": float((predictions(network, purified(detector, held.x)) == held.y).double().mean()),
    }
    foreign = load("fashion-mnist")
    clean = read(detector, test.x)
    anomalies = {
        "USPS": held.x,
        "Fashion-MNIST": foreign.read(foreign.spread("test", given.test)).x,
        "upside down": test.x.flip(2),
        "noise": torch.rand(test.x.shape, generator=torch.Generator().manual_seed(0)),
    }
    rows = {kind: {"auroc": compared(clean, read(detector, z))} for kind, z in anomalies.items()}
    means = {name: float(values.mean()) for name, values in clean.items()}
    sys.stderr.write(f"{accuracy} {rows} {means}\n")
    if given.pictures is not None:
        draw(given.pictures / f"usps_{seed}.png", detector, {"USPS": held.x[:8]})
        there = [("MNIST", test.x[:8]), ("as of USPS", to_other(detector, test.x[:8]))]
        sheet(given.pictures / f"mnist_{seed}.png", there)
    sizes = {"n_train": [len(train), len(other)], "n_test": len(test), "cpu_seconds": seconds}
    return sizes | {"accuracy": accuracy, "kinds": rows, "mean readings of MNIST": means}


def emoji(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Two artists."""
    drawn = drawings(given.train)
    half = len(drawn.train) // 2
    noto, twemoji = drawn.train[:half, :3], drawn.train[half:, 3:]
    theirs, ours = drawn.test[:, :3], drawn.test[:, 3:]
    label = torch.cat([torch.zeros(len(noto)), torch.ones(len(twemoji))]).long()
    both = torch.cat([noto, twemoji])
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "artists.npz", x=both.numpy(), y=label.numpy())
        artists = load(str(Path(folder) / "artists.npz"))
        network = train_classifier(artists, recipe=Recipe(epochs=20)).model.network.eval()
    detector = CycleGANDetector("cycle+critic", preset=given.preset, seed=seed)
    began = time.process_time()
    detector.fit(TensorDataset(both, label))
    seconds = time.process_time() - began
    made = purified(detector, ours)
    drawings_of = {"Noto": theirs, "Twemoji": ours, "Twemoji as of Noto": made}
    taken = {name: float((predictions(network, x) == 0).double().mean()) for name, x in drawings_of.items()}
    distance = {
        f"{name}, from Noto's of the same": float((x - theirs).abs().mean())
        for name, x in drawings_of.items()
        if name != "Noto"
    }
    rows = {"Twemoji": {"auroc": compared(read(detector, theirs), read(detector, ours))}}
    sys.stderr.write(f"{taken} {distance} {rows}\n")
    if given.pictures is not None:
        shown = [("Twemoji", ours[:12]), ("as of Noto", made[:12]), ("Noto's own", theirs[:12])]
        there = [("Noto", theirs[12:24]), ("as of Twemoji", to_other(detector, theirs[12:24]))]
        sheet(given.pictures / f"emoji_{seed}.png", shown + there)
    sizes = {"n_train": [len(noto), len(twemoji)], "n_test": len(theirs), "cpu_seconds": seconds}
    return sizes | {"accuracy": taken, "mean absolute difference": distance, "kinds": rows}


def to_other(detector: CycleGANDetector, x: Tensor) -> Tensor:
    """Inputs as of the other domain."""
    with torch.no_grad():
        return torch.cat([detector.translate(part, "other") for part in x.split(200)])


def compared(clean: dict[str, Array], odd: dict[str, Array]) -> dict[str, float]:
    """AUROC of every reading."""
    return {name: auroc(clean[name], odd[name]).value for name in clean}


def draw(path: Path, detector: CycleGANDetector, kinds: dict[str, Tensor]) -> None:
    """Inputs over their translations to the normal domain."""
    sheet(path, [row for name, x in kinds.items() for row in ((name, x), (f"{name}, after", purified(detector, x)))])


def sheet(path: Path, rows: list[tuple[str, Any]]) -> None:
    from robustgen.report.translations import translation_sheet

    path.parent.mkdir(parents=True, exist_ok=True)
    translation_sheet(rows, "translations").savefig(path, dpi=110)


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table a fit."""
    lines = list[str]()
    for result in results:
        readings = list(next(row["auroc"] for row in result["kinds"].values() if "auroc" in row))
        lines += [f"{result['part']}, {result['preset']}, seed {result['seed']}, {result['cpu_seconds']:.0f} CPU s", ""]
        if "accuracy" in result:
            lines += [", ".join(f"{name} {value:.3f}" for name, value in result["accuracy"].items()), ""]
        lines += [f"| inputs | accuracy | purified | {' | '.join(readings)} |", f"|---|{'---|' * (len(readings) + 2)}"]
        for kind, row in result["kinds"].items():
            cells = [f"{row[name]:.3f}" if name in row else "" for name in ("accuracy", "purified")]
            cells += [f"{row['auroc'][name]:.3f}" if "auroc" in row else "" for name in readings]
            lines.append(f"| {kind} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


PARTS = {"purifier": purifier, "usps": usps, "emoji": emoji}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", default=["purifier", "usps"], choices=tuple(PARTS))
    parser.add_argument("--victims", type=Path, default=Path("victims"), help="classifiers, trained there if absent")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--train", type=int, default=12_000, help="training inputs of a data set at most")
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--pictures", type=Path, help="folder for drawn translations")
    parser.add_argument("--out", type=Path, help="JSON file for the results, and to go on from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    command = (
        f"python -m robustgen_benchmarks.cycles --part {' '.join(given.part)} --preset {given.preset} "
        f"--train {given.train} --test {given.test} --seeds {given.seeds}"
    )
    file = ResultsFile(given.out, command)
    done = file.done("part", "preset", "seed")
    for part in given.part:
        for seed in range(given.seeds):
            if (part, given.preset, seed) not in done:
                found = PARTS[part](given, seed)
                file.add({"part": part, "preset": given.preset, "seed": seed, **found})
    sys.stdout.write(table(file.results))


if __name__ == "__main__":
    main()

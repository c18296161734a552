"""VAE or GAN? Both, and others, fitted on the same images: samples, reconstruction, likelihood, detection, cost.

    python -m robustgen_benchmarks.vae_or_gan --data fashion-mnist --detectors vae gan style-gan autoencoder \\
        --foreign mnist --model victims/plain --out vae_or_gan.json --picture samples.png

Sample quality is the Fréchet distance on the features of Inception where its weights are at hand, else on those of
`--model`, a classifier of the data, and stands beside the distance of as many real images to other real ones. Anomalies
are other data (`--foreign`), images made of normal ones (as in the self-test after a fit), and what PGD makes of them
against `--model`, beside noise of the same size. AUROC against all test images; only successes of the attack count.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.codes import Sampler
from robustgen.detectors.making import accepts
from robustgen.detectors.self_test import anomalies
from robustgen.evaluation.frechet import embedding
from robustgen.evaluation.generative import generative
from robustgen.evaluation.sampling import draw
from robustgen.models.load import LoadedModel, load_model
from robustgen.threat import ThreatModel
from robustgen_benchmarks.results_file import ResultsFile


def kinds(
    x: Tensor, y: Tensor, foreign: dict[str, Tensor], model: LoadedModel, eps: float, seed: int
) -> dict[str, Tensor]:
    """Anomalies by kind, a few hundred each."""
    random = torch.Generator().manual_seed(seed)
    found = {**foreign, "upside down": x.flip(2), **anomalies(x, "image", 0.0, 1.0, random)}
    result = PGD(threat=ThreatModel("linf", eps), steps=40)
    attacked = result.run(model.network, x, y)
    found[f"PGD {eps:g}"] = attacked.x_adv[attacked.success]
    signs = torch.randint(0, 2, x.shape, generator=random) * 2.0 - 1
    found[f"noise of +-{eps:g}"] = (x + eps * signs).clamp(0, 1)
    return found


def markdown(rows: list[dict[str, Any]]) -> str:
    """Two tables: what they make and cost, and what they catch."""

    def number(value: float | None, form: str = ".4f") -> str:
        return "-" if value is None else format(value, form)

    lines = [
        "| detector | Fréchet distance (real to real) | MSE | SSIM | bits a value | false alarms | fit, CPU s | "
        "score, ms | numbers held |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        distance = row["frechet"]
        said = "-" if distance is None else f"{distance['distance']:.2f} ({distance['real']:.2f})"
        lines.append(
            f"| {row['name']} | {said} | {number(row['mse'])} | {number(row['ssim'], '.3f')} | "
            f"{number(row['bits_per_value'], '.2f')} | {row['false_alarms']:.1%} | "
            f"{number(row['seconds_to_fit'], '.0f')} | {row['milliseconds']:.3f} | {row['parameters']:,} |"
        )
    names = list(rows[0]["detected"]) if rows else []
    lines += ["", f"| AUROC | {' | '.join(row['name'] for row in rows)} |", f"|---|{'---|' * len(rows)}"]
    for kind in names:
        cells = [f"{row['detected'][kind]:.3f}" for row in rows]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="a data name or path, as for robustgen fit")
    parser.add_argument("--detectors", nargs="+", default=["vae", "gan", "style-gan", "autoencoder"])
    parser.add_argument("--foreign", nargs="*", default=[], help="other data, resized to the same shape")
    parser.add_argument("--model", required=True, help="a classifier of the data")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--n", type=int, default=300, help="anomalies of a kind, and images they are made of")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path, help="folder for a sheet of samples of each")
    given = parser.parse_args()
    torch.set_num_threads(1)
    source, model = load(given.data), load_model(given.model)
    test = source.read(source.spread("test", 2 * given.samples + given.n))
    assert test.y is not None
    normal, base, labels = test.x[given.n :], test.x[: given.n], test.y[: given.n]
    foreign = {}
    for name in given.foreign:
        other = load(name, like=source.spec)
        foreign[name] = other.read(other.spread("test", given.n)).x
    found = kinds(base, labels, foreign, model, given.eps, given.seed)
    embed, features = embedding(model, torch.device("cpu"))
    features = features.replace(given.model, Path(given.model).name)  # no path of this machine in the results
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.vae_or_gan --data {source.spec.name} --detectors "
        f"{' '.join(given.detectors)} --foreign {' '.join(Path(name).name for name in given.foreign)} --preset "
        f"{given.preset} --eps {given.eps:g} --n {given.n} --samples {given.samples} --seed {given.seed}",
        data_sha256=source.spec.sha256,
    )
    done = file.done("name")
    for name in given.detectors:
        if (name,) in done:
            continue
        options = {key: value for key, value in (("preset", given.preset), ("seed", given.seed)) if accepts(name, key)}
        began = time.process_time()
        fitted = CalibratedDetector.fit(name, source, options=options)
        seconds = time.process_time() - began
        row = generative(
            fitted, normal, found, embed, features, samples=given.samples, seconds_to_fit=seconds, seed=given.seed
        ).to_json()
        file.add(row)
        sys.stderr.write(f"{json.dumps(row)}\n")
        if given.picture is not None and isinstance(fitted.detector, Sampler):
            from robustgen.report.samples import sample_sheet

            given.picture.mkdir(parents=True, exist_ok=True)
            x = draw(fitted, 32, given.seed)
            judged = fitted.judge(x)
            sheet = sample_sheet(x, f"by {name}", judged.p_value.tolist(), judged.flagged.tolist())
            sheet.savefig(given.picture / f"{name}.png", dpi=110)
    sys.stdout.write(markdown(file.results))


if __name__ == "__main__":
    main()

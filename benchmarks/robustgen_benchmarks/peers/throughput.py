"""PGD and Auto-PGD on a residual network on 32 x 32 x 3 images, on a GPU: images a second, and share of the device's
peak.

    python -m robustgen_benchmarks.peers.throughput --device cuda --out throughput.json

The network is `small-resnet` of width 64, trained for a few epochs on images that are made here (ten smooth patterns
with noise), so that nothing is downloaded; adversarially trained where `--eps-trained` is above 0, so that attacks have
work to do. The peak is that of a large matrix product in the same precision, measured in the same run. Operations are
counted by torch.utils.flop_counter on one pass.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from robustgen.attacks.apgd import APGD
from robustgen.attacks.base import Attack
from robustgen.attacks.pgd import PGD
from robustgen.models.resnet import SmallResNet
from robustgen.runtime import seeded
from robustgen.threat import ThreatModel
from robustgen_benchmarks.peers.libraries import PEERS, Case, NotOffered
from robustgen_benchmarks.results_file import ResultsFile

CASES = (Case("pgd", "linf", 8 / 255, 40, 2.5 / 40 * 8 / 255), Case("apgd-ce", "linf", 8 / 255, 100))
OURS: dict[str, dict[str, Any]] = {
    "robustgen": {},
    "robustgen, bfloat16 search": {"precision": "bfloat16"},
    "robustgen, compiled": {"compile": True},
    "robustgen, both": {"precision": "bfloat16", "compile": True},
}


def images(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """(n, 3, 32, 32) in [0, 1] and labels: one of ten smooth patterns, mixed with another and with noise."""
    patterns = nn.functional.interpolate(
        torch.rand(10, 3, 5, 5, generator=torch.Generator().manual_seed(1)), size=32, mode="bicubic"
    ).clamp(0, 1)
    draws = torch.Generator().manual_seed(seed)
    y, other = torch.randint(0, 10, (2, n), generator=draws)
    share = 0.35 + 0.3 * torch.rand(n, 1, 1, 1, generator=draws)
    noise = 0.15 * torch.randn(n, 3, 32, 32, generator=draws)
    return ((1 - share) * patterns[y] + share * patterns[other] * 0.8 + noise).clamp(0, 1), y


def victim(width: int, epochs: int, eps: float, device: torch.device) -> nn.Module:
    """A trained residual network in evaluation mode."""
    x, y = (value.to(device) for value in images(20_000, 2))
    with seeded(0):
        network = SmallResNet((3, 32, 32), 10, width).to(device)
        optimiser = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
        attack = PGD(threat=ThreatModel("linf", eps), steps=3, mode="last", batch_size=1 << 20) if eps else None
        for epoch in range(epochs):
            optimiser.param_groups[0]["lr"] = 0.05 * (1 - epoch / epochs)
            for rows in torch.randperm(len(x), device=device).split(256):
                inputs = x[rows] if attack is None else attack(network, x[rows], y[rows])
                network.train()
                optimiser.zero_grad()
                nn.functional.cross_entropy(network(inputs), y[rows]).backward()
                optimiser.step()
    network.eval()
    return network


def measured(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds, with the device idle at both ends."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def peak(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations a second of a product of two (size, size) matrices, the best of five."""
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    measured(lambda: a @ b, device)
    return 2 * size**3 / min(measured(lambda: a @ b, device) for _ in range(5))


def operations(network: nn.Module, x: Tensor) -> float:
    """Of one forward pass and its gradient for the input, for one image."""
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    point = x.clone().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(network(point * 1).sum(), point)  # the counter takes no leaves
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return float(counter.get_total_flops()) / len(x)


def case_results(
    case: Case, network: nn.Module, x: Tensor, y: Tensor, size: int, rounds: int, peaks: dict[str, float]
) -> list[dict[str, Any]]:
    """One case for all who have it."""
    device, cost = x.device, operations(network, x[:32])
    runs: dict[str, Callable[[], Any]] = {}
    counts: dict[str, int] = {}
    for name, options in OURS.items():
        attack: Attack = (
            PGD(threat=case.threat, steps=case.steps, step_size=case.step_size, random_start=False, **options)
            if case.attack == "pgd"
            else APGD(threat=case.threat, steps=case.steps, **options)
        )
        counts[name] = int(attack.run(network, x, y).backward.sum())  # compiles, too
        runs[name] = lambda attack=attack: attack.run(network, x, y).x_adv  # type: ignore[misc]
    for name, peer in PEERS.items():
        if name in OURS or name == "robustgen, all steps":
            continue
        try:
            theirs = peer(case, network, size)
            theirs(x[:size], y[:size])
        except (ImportError, NotOffered) as error:
            sys.stdout.write(f"{name}: {error}\n")
            continue
        runs[name] = lambda theirs=theirs: theirs(x, y)  # type: ignore[misc]
    seconds = {name: median(measured(run, device) for _ in range(rounds)) for name, run in runs.items()}
    results = []
    for name, run in runs.items():
        x_adv = run().to(device)
        with torch.no_grad():
            parts = zip(x_adv.split(size), y.split(size), strict=True)
            held = torch.cat([network(part).argmax(1) == label for part, label in parts]).double().mean().item()
        passes = counts.get(name, case.steps * len(x))
        kind = "bfloat16" if "bfloat16" in name or "both" in name else "float32"
        results.append(
            {
                "case": case.title,
                "who": name,
                "seconds": seconds[name],
                "ratio": seconds[name] / seconds["robustgen"],
                "images_per_second": len(x) / seconds[name],
                "passes_per_second": passes / seconds[name],
                "share_of_peak": passes * cost / seconds[name] / peaks[kind],
                "robust_accuracy": held,
            }
        )
        sys.stdout.write(
            f"| {case.title} | {name} | {len(x) / seconds[name]:,.0f} | {results[-1]['ratio']:.2f}x | "
            f"{results[-1]['share_of_peak']:.1%} | {held:.2%} |\n"
        )
        sys.stdout.flush()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--n", type=int, default=4096)
    parser.add_argument("--batch-size", type=int, default=1024, help="of the peers; ours choose their own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--matrix", type=int, default=8192, help="side of the matrices that the peak is measured with")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    given = parser.parse_args()
    device = torch.device(given.device)
    peaks = {
        "float32": peak(device, torch.float32, given.matrix),
        "bfloat16": peak(device, torch.bfloat16, given.matrix),
    }
    sys.stdout.write(
        "| attack | who | images/s | time | share of peak | robust accuracy |\n|---|---|---|---|---|---|\n"
    )
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.peers.throughput --device {device.type} --n {given.n} "
        f"--batch-size {given.batch_size} --rounds {given.rounds} --width {given.width} --epochs {given.epochs} "
        f"--matrix {given.matrix}",
        "foolbox",
        "torchattacks",
        "adv-lib",
        go_on=False,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        peaks=peaks,
    )
    for name, eps in (("plain", 0.0), ("adversarial", 8 / 255)):
        network = victim(given.width, given.epochs, eps, device)
        x, y = (value.to(device) for value in images(given.n, 3))
        for case in CASES:
            found = case_results(case, network, x, y, given.batch_size, given.rounds, peaks)
            file.add(*({"victim": name, **one} for one in found))


if __name__ == "__main__":
    main()

"""What the authors' AutoAttack finds on a network of a few thousand weights: the facts that the tests compare with.

    ROBUSTGEN_AUTO_ATTACK=FOLDER python -m robustgen_benchmarks.reference_facts tests/attacks/reference/auto_attack.npz

ROBUSTGEN_AUTO_ATTACK: a copy of github.com/fra31/auto-attack. The network is trained here, on digits and against PGD,
so that each norm has rows that fall and rows that hold; its weights, the inputs and the verdicts go into the file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.runtime import seeded
from robustgen.threat import ThreatModel
from robustgen_benchmarks.parity_auto_attack import Setting, by_the_authors
from robustgen_benchmarks.peers.libraries import REFERENCE
from robustgen_benchmarks.victims import first

THREATS = (ThreatModel("linf", 0.15), ThreatModel("l2", 0.7), ThreatModel("l1", 2.5))


def network() -> nn.Sequential:
    """The architecture that `tests/attacks/test_auto_attack.py` fills with the stored weights."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 24),
        nn.ReLU(),
        nn.Linear(24, 10),
    )


def trained() -> nn.Sequential:
    """On digits, with half of each batch attacked."""
    source = load("digits")
    batch = source.read(source.rows("train"))
    x, y = batch.x, batch.y
    assert y is not None  # digits has labels
    attack = PGD(threat=ThreatModel("linf", 0.12), steps=5, mode="last")
    with seeded(0):
        model = network()
        optimiser = torch.optim.Adam(model.parameters(), 0.003)
        for epoch in range(60):
            for rows in torch.randperm(len(x)).split(128):
                half = rows[: len(rows) // 2]
                inputs = torch.cat([attack(model, x[half], y[half]), x[rows[len(rows) // 2 :]]])
                labels = torch.cat([y[half], y[rows[len(rows) // 2 :]]])
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(inputs), labels).backward()
                optimiser.step()
            if epoch == 40:
                optimiser.param_groups[0]["lr"] = 0.0005
    return model.eval().requires_grad_(False)


def main() -> None:
    if len(sys.argv) != 2 or REFERENCE not in os.environ:
        sys.exit(f"give the file to write, and in {REFERENCE} a folder with a copy of github.com/fra31/auto-attack")
    sys.path.append(os.environ[REFERENCE])
    torch.set_num_threads(1)
    model = trained()
    x, y = first(load("digits"), 100)
    facts = {name.replace(".", "_"): value.numpy() for name, value in model.state_dict().items()}
    facts |= {"x": (x * 16).round().byte().numpy(), "y": y.byte().numpy()}
    for threat in THREATS:
        setting = Setting("digits", model, x, y, threat.norm, threat.eps)
        for seed in (0, 1):
            fooled = by_the_authors(setting, seed, 100).fooled
            facts[f"{threat.norm}_{threat.eps:g}_seed_{seed}"] = fooled.to(torch.int8).numpy()
            sys.stdout.write(f"{threat} seed {seed}: {fooled.add(1).bincount(minlength=6).tolist()}\n")
    np.savez_compressed(Path(sys.argv[1]), **facts)


if __name__ == "__main__":
    main()

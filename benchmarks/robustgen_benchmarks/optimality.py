"""How near do attacks come to the smallest change that fools? robustgen's beside adv_lib's, in AttackBench's measure.

For each input, d is the size of the change that an attack found, infinite where it found none and 0 where the victim is
wrong by itself; d* is the smallest d over all attacks of the comparison. rho(eps) is the share of inputs with d > eps,
the robust accuracy, and rho* that for d*; rho(0) is the clean accuracy, the same for all. With eps0 the largest d*,
where rho* reaches 0, the optimality of an attack is

    1 - integral of (rho - rho*) / integral of (rho(0) - rho*), both from 0 to eps0
      = 1 - mean(min(d, eps0) - d*) / (rho(0) eps0 - mean(d*))

(Cinà, Rony et al. 2025, "AttackBench", arXiv 2404.19460, local optimality): 1 where every change is the smallest known,
0 where nothing was found. Inputs that no attack changed to be misclassified are left out, and counted.

What runs, on the same inputs: attacks for the smallest change once, `--steps` steps each; Auto-PGD with `--rounds`
times as many gradient passes a row, in a search for the smallest change:

- "adv_lib apgd-ce" and "apgd-dlr" are its attack for a given eps, in `--rounds` rounds of `--steps` steps of a
  bisection over eps, row by row, each round from other random points, as in its own `minimal_apgd`; but over the
  logarithm of eps, which comes nearer at small sizes. That is (steps + 1) * rounds gradient passes a row, in L1
  (steps + 3) * rounds.
- "robustgen apgd-ce" and "apgd-dlr" are its attack for the smallest change, `apgd-minimal` with either loss, `--steps`
  and `--rounds`: steps * rounds gradient passes a row and one forward pass.
- With `--in-bisection`, "robustgen apgd-ce in bisection" and "apgd-dlr in bisection" are its attack for a given eps in
  the very bisection that adv_lib's runs in.

    python -m robustgen_benchmarks.optimality --data fashion-mnist --victims victims --out optimality.json

With `--parts` a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustgen import runtime
from robustgen.artifacts import state_digest, to_json, write_atomically
from robustgen.attacks.apgd import APGD
from robustgen.attacks.apgd_minimal import MinimalAPGD
from robustgen.attacks.base import Attack
from robustgen.attacks.ddn import DDN
from robustgen.attacks.fmn import FMN
from robustgen.attacks.sigma_zero import SigmaZero
from robustgen.data.load import load
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, cross_entropy, dlr
from robustgen.threat import Norm, ThreatModel
from robustgen_benchmarks.peers.libraries import from_adv_lib
from robustgen_benchmarks.results_file import ResultsFile
from robustgen_benchmarks.victims import first, predictions, victims

Run = Callable[[nn.Module, Tensor, Tensor, int], Tensor]
"""(network, x, y, steps) -> x_adv"""

Within = Callable[[nn.Module, Tensor, Tensor, Tensor, int, int], Tensor]
"""(network, x, y, eps (n,), steps, seed) -> x_adv"""

ORDER = {"linf": torch.inf, "l2": 2.0, "l1": 1.0, "l0": 0.0}
WIDEST = {"linf": 1.0, "l2": 16.0, "l1": 128.0}
"""The upper end of a bisection over eps; the lower is a 4096th of it."""


def ours(make: Callable[..., Attack], norm: Norm, size: int) -> Run:
    """An attack for the smallest change, with the whole box as its budget."""
    threat = ThreatModel(norm, {"linf": 1.0}.get(norm, 1e9))
    return lambda network, x, y, steps: make(threat=threat, steps=steps, batch_size=size)(network, x, y)


def ours_within(loss: Callable[[Tensor, Tensor], Tensor], norm: Norm, size: int) -> Within:
    """APGD, which takes one eps a call: rows with the same eps go together."""

    def run(network: nn.Module, x: Tensor, y: Tensor, eps: Tensor, steps: int, seed: int) -> Tensor:
        x_adv = x.clone()
        for value in eps.unique().tolist():
            rows, threat = eps == value, ThreatModel(norm, value)
            attack = APGD(threat=threat, steps=steps, objective=Misclassify(loss), batch_size=size, seed=seed)
            x_adv[rows] = attack(network, x[rows], y[rows])
        return x_adv

    return run


def theirs(attack: Callable[..., Tensor], size: int, **options: Any) -> Run:
    """An attack of adv_lib for the smallest change; `options` say what its `steps` are called."""
    word = options.pop("word", "steps")

    def run(network: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
        parts = zip(x.split(size), y.split(size), strict=True)
        return torch.cat([attack(network, *part, **{word: steps}, **options) for part in parts])

    return run


def theirs_within(loss: str, norm: Norm, size: int) -> Within:
    """adv_lib's APGD, which like ours begins in larger balls in L1."""
    attack = partial(from_adv_lib("apgd"), norm=ORDER[norm], loss_function=loss, use_large_reps=norm == "l1")

    def run(network: nn.Module, x: Tensor, y: Tensor, eps: Tensor, steps: int, seed: int) -> Tensor:
        torch.manual_seed(seed)  # it draws from the global generator
        parts = zip(x.split(size), y.split(size), eps.split(size), strict=True)
        return torch.cat([attack(network, *part, n_iter=steps) for part in parts])

    return run


def bisected(within: Within, norm: Norm, rounds: int, seed: int) -> Run:
    """The nearest success over `rounds` rounds of a bisection over the logarithm of eps, which leaves the same relative
    error at every size: 0.8 % after 10. Each round starts from other random points.
    """
    threat = ThreatModel(norm, 1.0)

    def run(network: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
        high = torch.full((len(x),), WIDEST[norm])
        low = high / 4096
        nearest, x_best = torch.full((len(x),), torch.inf), x.clone()
        for number in range(rounds):
            eps = (low * high).sqrt()
            x_adv = within(network, x, y, eps, steps, seed * rounds + number)
            fooled, distance = predictions(network, x_adv) != y, threat.distance(x_adv, x)
            better = fooled & (distance < nearest)
            nearest, x_best[better] = torch.where(better, distance, nearest), x_adv[better]
            low, high = torch.where(fooled, low, eps), torch.where(fooled, eps, high)
        return x_best

    return run


def attacks(norm: Norm, size: int, rounds: int, seed: int, in_bisection: bool = False) -> dict[str, Callable[[], Run]]:
    """The attacks to compare in `norm`, each made when called, because adv_lib may not be there."""
    order = ORDER[norm]
    found: dict[str, Callable[[], Run]] = {}
    if norm == "l0":
        found["robustgen sigma-zero"] = partial(ours, SigmaZero, norm, size)
        found["adv_lib sigma-zero"] = lambda: theirs(from_adv_lib("sigma_zero"), size, word="num_steps")
        found["adv_lib fmn"] = lambda: theirs(from_adv_lib("fmn"), size, norm=order)
        return found
    found["robustgen fmn"] = partial(ours, FMN, norm, size)
    found["adv_lib fmn"] = lambda: theirs(from_adv_lib("fmn"), size, norm=order)
    if norm == "l2":
        found["robustgen ddn"] = partial(ours, DDN, norm, size)
        found["adv_lib ddn"] = lambda: theirs(from_adv_lib("ddn"), size, levels=None)
    for loss, function in (("ce", cross_entropy), ("dlr", dlr)) if rounds else ():
        minimal = partial(MinimalAPGD, objective=Misclassify(function), rounds=rounds, seed=seed)
        found[f"robustgen apgd-{loss}"] = partial(ours, minimal, norm, size)
        found[f"adv_lib apgd-{loss}"] = lambda n=loss: bisected(theirs_within(n, norm, size), norm, rounds, seed)  # type: ignore[misc]
        if not in_bisection:
            continue
        found[f"robustgen apgd-{loss} in bisection"] = lambda f=function: bisected(  # type: ignore[misc]
            ours_within(f, norm, size), norm, rounds, seed
        )
    return found


def sizes(network: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, norm: Norm) -> Tensor:
    """d of every input (n,) float64: see above. A point outside the box by more than rounding counts as none."""
    legal = ((x_adv >= -1e-6) & (x_adv <= 1 + 1e-6)).flatten(1).all(1)
    d = ThreatModel(norm, 1.0).distance(x_adv.double(), x.double())
    d = torch.where(legal & (predictions(network, x_adv) != y), d, torch.inf)
    return torch.where(predictions(network, x) == y, d, 0.0)


def optimality(d: Tensor, best: Tensor) -> float:
    """Of finite `best` (n,): the formula at the head of this file."""
    eps0 = best.max()
    excess = (d.minimum(eps0) - best).mean()
    return (1 - excess / ((best > 0).double().mean() * eps0 - best.mean())).item()


def once(part: Path | None, find: Callable[[], Tensor]) -> Tensor:
    """What `find` gives (n,), or gave an earlier run, which left it in `part`."""
    if part is not None and part.exists():
        return torch.from_numpy(np.load(part, allow_pickle=False))
    found = find()
    if part is not None:
        write_atomically(part, lambda path: path.write_bytes(_npy(found)), force=True)
    return found


def _npy(values: Tensor) -> bytes:
    file = BytesIO()
    np.save(file, values.numpy(), allow_pickle=False)
    return file.getvalue()


def resumed(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make `folder` that of a run with these settings. Raises `UsageError` where it holds another's parts."""
    told = folder / "settings.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not told.exists():
        told.write_text(to_json(settings) + "\n", encoding="utf-8")
    if told.read_text(encoding="utf-8") != to_json(settings) + "\n":
        raise UsageError(f"{folder} holds parts of another run (its settings.json): choose another --parts")


def measure(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    norm: Norm,
    steps: int,
    rounds: int,
    size: int,
    seed: int,
    in_bisection: bool = False,
    parts: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """All attacks of one norm on one victim; `parts`: the beginning of the files that keep what they find."""
    found: dict[str, dict[str, Any]] = {}
    d: dict[str, Tensor] = {}
    for name, make in attacks(norm, size, rounds, seed, in_bisection).items():
        torch.manual_seed(seed)  # for adv_lib, which draws from the global generator
        try:
            run = make()
        except ModuleNotFoundError as error:
            found[name] = {"missing": f"{error.name} is not installed"}
            continue
        part = None if parts is None else parts.with_name(f"{parts.name}_{name.replace(' ', '_')}.npy")
        d[name] = once(part, lambda run=run: sizes(network, x, y, run(network, x, y, steps), norm))  # type: ignore[misc]
        sys.stderr.write(f"{norm} {name} done\n")
    best = torch.stack(list(d.values())).amin(0)
    known = best.isfinite()
    for name, value in d.items():
        hit = value.isfinite()
        found[name] = {
            "optimality": optimality(value[known], best[known]),
            "success": hit.double().mean().item(),
            "median": value.median().item() if value.median().isfinite() else None,
            "mean_over_best": (value[hit & (best > 0)] / best[hit & (best > 0)]).mean().item(),
            "nearest": (value[known & (best > 0)] <= best[known & (best > 0)] * 1.001).double().mean().item(),
            "never_fooled": int((~known).sum()),
        }
    return found


def table(victim: str, norm: Norm, n: int, steps: int, found: Mapping[str, Mapping[str, Any]]) -> str:
    """One victim and norm as a Markdown table."""
    lines = [
        f"**{norm}, {victim} victim**, n = {n}, {steps} steps",
        "",
        "| attack | optimality | success | median size | size over best known, mean | within 0.1 % of best |",
        "|---|---|---|---|---|---|",
    ]
    for name, value in found.items():
        if "missing" in value:
            lines.append(f"| {name} | {value['missing']} | | | | |")
            continue
        median = "-" if value["median"] is None else f"{value['median']:.4g}"
        lines.append(
            f"| {name} | {value['optimality']:.4f} | {value['success']:.1%} | {median} | "
            f"{value['mean_over_best']:.4f} | {value['nearest']:.1%} |"
        )
    return "\n".join(lines) + "\n\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="a data name or path, as for robustgen attack")
    parser.add_argument("--victims", type=Path, default=Path("victims"), help="folder; victims are trained if absent")
    parser.add_argument("--n", type=int, default=100, help="test inputs")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10, help="of the bisection over eps for apgd; 0 = no apgd")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the random starts")
    parser.add_argument("--only", nargs="+", choices=("plain", "adversarial"), default=["plain", "adversarial"])
    parser.add_argument("--norms", nargs="+", choices=tuple(ORDER), default=list(ORDER))
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--in-bisection", action="store_true", help="robustgen's apgd for a given eps there, too")
    parser.add_argument("--parts", type=Path, help="folder that keeps what each attack found, for a run that goes on")
    given = parser.parse_args()
    torch.set_num_threads(1)
    runtime.keep_freed_memory()
    source = load(given.data)
    inputs = first(source, given.n)
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.optimality --data {source.spec.name} --n {given.n} "
        f"--steps {given.steps} --rounds {given.rounds} --batch-size {given.batch_size} "
        f"--seed {given.seed} --only {' '.join(given.only)} --norms {' '.join(given.norms)}"
        + " --in-bisection"
        * given.in_bisection,
        "adv-lib",
        go_on=False,
        data_sha256=source.spec.sha256,
    )
    chosen = victims(source, given.victims)
    if given.parts is not None:
        settings = {name: getattr(given, name) for name in ("n", "steps", "rounds", "batch_size", "seed")}
        weights = {name: state_digest(network.state_dict()) for name, network in chosen.items()}
        resumed(given.parts, settings | {"data": source.spec.sha256, "victims": weights})
    for name, network in ((name, chosen[name]) for name in given.only):
        for norm in given.norms:
            parts = None if given.parts is None else given.parts / f"{name}_{norm}"
            numbers = (given.steps, given.rounds, given.batch_size, given.seed, given.in_bisection)
            found = measure(network, *inputs, norm, *numbers, parts)
            file.add({"victim": name, "norm": norm, "attacks": found})  # after each: all take most of an hour
            sys.stdout.write(table(name, norm, given.n, given.steps, found))
            sys.stdout.flush()


if __name__ == "__main__":
    main()

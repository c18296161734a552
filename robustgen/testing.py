"""Contract checks anyone can run on an attack, a detector or a data source of their own.

Each raises `AssertionError` with a sentence that says which promise was broken. They use small synthetic inputs and
take a second.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from robustgen.attacks.base import Attack
from robustgen.data.source import Source, Split
from robustgen.detectors.base import Detector
from robustgen.detectors.watching import WatchingDetector
from robustgen.errors import RobustgenError, UsageError
from robustgen.threat import Norm, ThreatModel


def _check(holds: bool, promise: str) -> None:
    if not holds:
        raise AssertionError(promise)


def _classifier(shape: tuple[int, ...], generator: torch.Generator) -> tuple[nn.Module, Tensor, Tensor]:
    """A random two-layer network, inputs, and the labels that it gives them."""
    size = int(torch.tensor(shape).prod())
    network = nn.Sequential(nn.Flatten(), nn.Linear(size, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
        x = torch.rand(12, *shape, generator=generator)
        return network, x, network(x).argmax(1)


def check_attack(make: Callable[[ThreatModel], Attack], shape: tuple[int, ...] = (1, 6, 6)) -> None:
    """Check what every attack promises; `make` gives the attack for a threat model.

    Legal results for several sizes in its norms; eps = 0 changes nothing; the same result for any batch size, subset
    and order; success means success; inputs, model and the global random state untouched; empty and one-row batches
    work.
    """
    generator = torch.Generator().manual_seed(0)
    network, x, y = _classifier(shape, generator)
    for norm in _norms(make):
        for eps in _SIZES[norm]:
            _check_one(make(ThreatModel(norm, eps)), network, x, y)
        still = make(ThreatModel(norm, 0.0))(network, x, y)
        _check(torch.equal(still, x), "with eps = 0 an attack returns its inputs, bit by bit")


_SIZES: dict[Norm, tuple[float, ...]] = {"linf": (0.1, 1.0), "l2": (0.5,), "l1": (2.0,), "l0": (10.0,)}


def _norms(make: Callable[[ThreatModel], Attack]) -> tuple[Norm, ...]:
    """The norms that an attack says it works in; only an attack that was made can be asked."""
    for norm in get_args(Norm):
        with suppress(UsageError):
            return make(ThreatModel(norm, 0.1)).norms
    raise AssertionError("an attack works in one norm at least")


def _check_one(attack: Attack, network: nn.Module, x: Tensor, y: Tensor) -> None:
    before, state, random = x.clone(), [p.clone() for p in network.parameters()], torch.get_rng_state()
    network.train()
    result = attack.run(network, x, y)
    _check(network.training, "an attack leaves the training mode as it was")
    _check(torch.equal(x, before), "an attack does not change its inputs")
    _check(
        all(torch.equal(a, b) for a, b in zip(state, network.parameters(), strict=True)),
        "an attack does not change the model",
    )
    _check(
        all(p.grad is None and p.requires_grad for p in network.parameters()),
        "an attack leaves no gradients and freezes nothing",
    )
    _check(torch.equal(random, torch.get_rng_state()), "an attack neither uses nor changes the global random state")
    network.eval()
    _check(
        bool(attack.threat.allows(result.x_adv, x).all()),
        f"every result lies in the ball and the box of {attack.threat}",
    )
    with torch.no_grad():
        fooled = network(result.x_adv).argmax(1) != y
    _check(bool((fooled | ~result.success).all()), "where an attack reports success, the model is fooled")
    _check(
        torch.allclose(attack(network, x, y), result.x_adv, atol=1e-6), "calling an attack gives what running it gives"
    )
    small = replace(attack, batch_size=5)(network, x, y)
    _check(torch.allclose(small, result.x_adv, atol=1e-5), "the result does not depend on the batch size")
    _check(attack(network, x[:0], y[:0]).shape == x[:0].shape, "an empty batch gives an empty result")
    _check(attack(network, x[3:4], y[3:4]).shape == x[3:4].shape, "one row alone gives one row")
    order = torch.arange(len(x)).flip(0)
    _check(
        torch.allclose(attack(network, x[order], y[order]), result.x_adv[order], atol=1e-5),
        "the result does not depend on the order",
    )
    _check(
        attack.whole or torch.allclose(attack(network, x[3:4], y[3:4]), result.x_adv[3:4], atol=1e-5),
        "a row's result does not depend on the others",
    )


def check_detector(make: Callable[[], Detector], shape: tuple[int, ...] = (1, 8, 8)) -> None:
    """Check what every detector promises; `make` gives a fresh one, with its classifier if it watches one. A
    conditional one is given two labels.

    A clear error before it is fitted; one finite score per input, higher for gross anomalies; the same score for any
    batch, and none for an empty one; a gradient with respect to the input, if it says that it is differentiable; the
    same detector from the same data; a saved state that scores the same; inputs and random state untouched.
    """
    generator = torch.Generator().manual_seed(0)
    basis = torch.rand(3, *shape, generator=generator)
    x = torch.einsum("nk,k...->n...", torch.rand(256, 3, generator=generator), basis) / 3
    try:
        make().score(x)
    except RobustgenError:
        pass
    else:
        raise AssertionError("score() before fit() raises a RobustgenError")
    data = TensorDataset(x, _label(x)) if make().conditional or make().labelled else x

    def score(detector: Detector, x: Tensor) -> Tensor:
        return detector.score(x, _label(x) if detector.conditional else None)

    before, random = x.clone(), torch.get_rng_state()
    detector = make().fit(data)
    _check(torch.equal(x, before), "fitting does not change the data")
    _check(torch.equal(random, torch.get_rng_state()), "fitting neither uses nor changes the global random state")
    with torch.no_grad():
        scores = score(detector, x)
        odd = score(detector, torch.rand(64, *shape, generator=generator))
    _check(
        scores.shape == (len(x),) and bool(torch.isfinite(scores).all()), "score() gives one finite number per input"
    )
    _check(bool(odd.median() > scores.median()), "noise scores higher than normal inputs: higher means more anomalous")
    with torch.no_grad():
        alone = torch.cat([score(detector, x[i : i + 1]) for i in range(8)])
    rounding = 1e-7 + 1e-4 * scores.std().item()  # a score may be a difference near 0
    alike = torch.allclose(alone, scores[:8], rtol=1e-4, atol=rounding)
    _check(alike, "a score does not depend on the batch it comes in")
    _check(score(detector, x[:0]).shape == (0,), "no inputs have no scores")
    parts = detector.explain(x[:4], _label(x[:4]) if detector.conditional else None)
    _check(parts.shape == x[:4].shape and bool(torch.isfinite(parts).all()), "explain() gives a number for each value")
    if detector.differentiable:
        point = torch.rand(4, *shape, generator=generator, requires_grad=True)
        (gradient,) = torch.autograd.grad(score(detector, point).sum(), point)
        _check(bool((gradient.flatten(1).abs().sum(1) > 0).all()), "a score has a gradient with respect to its input")
    with torch.no_grad():
        _check(torch.equal(score(make().fit(data), x), scores), "the same data and seed give the same detector")
        _check(torch.equal(score(detector.fit(data), x), scores), "fitting again forgets the first fit")
        fresh = type(detector)(**detector.config)
        if isinstance(detector, WatchingDetector) and isinstance(fresh, WatchingDetector):
            fresh.watch(detector.classifier)
        fresh.restore(shape, detector.state_dict())
        _check(torch.equal(score(fresh, x), scores), "a detector made from its configuration and state scores the same")


def _label(x: Tensor) -> Tensor:
    """One of two labels for each input, by a value of its own."""
    return (x.flatten(1)[:, 0] > 0.2).long()


def check_source(source: Source) -> None:
    """Check what every source promises.

    Splits that are disjoint and cover every row; batches that give each row once, of the announced shape, type and
    range; the same rows shuffled by a generator; labels within the classes.
    """
    splits: dict[str, set[int]] = {name: set(rows.tolist()) for name, rows in source.splits.items()}
    total = sum(len(rows) for rows in splits.values())
    _check(len(set().union(*splits.values())) == total, "no row is in two splits")
    _check(sorted(set().union(*splits.values())) == source.rows("all").tolist(), "the splits together are all rows")
    for name in ("train", "calibration", "test"):
        if splits.get(name):
            _check_split(source, name)


def _check_split(source: Source, split: Split) -> None:
    batches = list(source.batches(split, 64))
    index = torch.cat([batch.index for batch in batches])
    _check(
        index.tolist() == [row for row in source.rows(split).tolist() if row in set(index.tolist())],
        "rows come in order, each once",
    )
    for batch in batches:
        _check(tuple(batch.x.shape[1:]) == source.spec.shape, f"inputs have the shape of the spec, {source.spec.shape}")
        _check(batch.x.dtype == torch.float32, "inputs are float32")
        if source.spec.kind == "image":
            _check(
                bool((batch.x >= source.spec.low).all() & (batch.x <= source.spec.high).all()),
                "images lie in the box of the spec",
            )
        if batch.y is not None and source.spec.classes:
            _check(
                bool((batch.y >= 0).all() & (batch.y < len(source.spec.classes)).all()),
                "labels are numbers of the spec's classes",
            )
    shuffled = torch.cat([batch.index for batch in source.batches(split, 64, torch.Generator().manual_seed(1))])
    _check(sorted(shuffled.tolist()) == sorted(index.tolist()), "shuffling gives the same rows")

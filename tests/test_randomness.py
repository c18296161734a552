from __future__ import annotations

import pytest
import torch
from scipy import stats

from robustgen.randomness import derive, normal, sample_keys, uniform

_MASK = 2**64 - 1


def _splitmix(z: int) -> int:
    """The published finaliser in Python's own integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def test_uniform_is_splitmix64_on_keyed_counters() -> None:
    keys = torch.tensor([0, 1, -5, 2**62])
    got = uniform(keys, (3,), stream=7)
    for row, key in enumerate(keys.tolist()):
        base = _splitmix((key + 15) & _MASK)
        expected = [(_splitmix((base + j * 0x9E3779B97F4A7C15) & _MASK) >> 40) * 2.0**-24 for j in (1, 2, 3)]
        assert got[row].tolist() == expected


def test_distributions_are_what_they_say() -> None:
    keys = sample_keys(torch.arange(64.0).reshape(64, 1), seed=0)
    assert stats.kstest(uniform(keys, (500,)).flatten().numpy(), "uniform").pvalue > 1e-3
    values = normal(keys, (500,))
    assert torch.isfinite(values).all()
    assert stats.kstest(values.flatten().numpy(), "norm").pvalue > 1e-3


def test_streams_and_neighbouring_keys_are_uncorrelated() -> None:
    keys = torch.arange(200)
    a, b = uniform(keys, (200,), 0), uniform(keys, (200,), 1)
    for left, right in ((a, b), (a[:-1], a[1:]), (a[:, :-1], a[:, 1:])):
        correlation = torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1]
        assert abs(correlation) < 4 / 200  # four standard errors of 40,000 pairs


def test_keys_depend_on_content_and_seed_alone(generator: torch.Generator) -> None:
    x = torch.rand(20, 1, 5, 5, generator=generator)
    keys = sample_keys(x, 3)
    assert len(set(keys.tolist())) == 20
    assert torch.equal(sample_keys(x.flip(0), 3).flip(0), keys)
    assert torch.equal(sample_keys(x.double(), 3), keys)
    assert torch.equal(sample_keys(x.contiguous(memory_format=torch.channels_last), 3), keys)
    assert torch.equal(sample_keys(-torch.zeros(1, 4), 3), sample_keys(torch.zeros(1, 4), 3))
    assert not torch.equal(sample_keys(x, 4), keys)


def test_derived_keys_differ_for_every_key_and_number() -> None:
    keys, numbers = torch.arange(40).repeat_interleave(50), torch.arange(50).repeat(40)
    derived = derive(keys, numbers)
    assert len(set(derived.tolist())) == 2000
    assert torch.equal(derive(keys[7:9], numbers[7:9]), derived[7:9])
    left, right = uniform(derived[:-1], (50,)), uniform(derived[1:], (50,))
    correlation = torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1]
    assert abs(correlation) < 4 / len(left.flatten()) ** 0.5  # four standard errors


def test_shapes_in_signatures_are_checked_in_the_tests() -> None:
    """If this fails, the run-time checker of pyproject.toml is not in force and every other shape goes unchecked."""
    from jaxtyping import TypeCheckError

    with pytest.raises(TypeCheckError):
        uniform(torch.rand(3, 2), (2,))  # type: ignore[arg-type]

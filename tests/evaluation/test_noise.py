"""Changes that no attacker chose: of the size they say, in the box, each row's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustgen.data.load import load
from robustgen.errors import UsageError
from robustgen.evaluation.noise import (
    background,
    blur,
    constant_background,
    gaussian,
    noise_controls,
    rounded,
    shift,
    sign,
    smooth,
)
from robustgen.threat import ThreatModel


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(6, 2, 8, 8, generator=generator) * 0.4 + 0.3


def test_norms_are_what_they_say(images: Tensor) -> None:
    size = (2 * 64) ** 0.5
    assert torch.allclose((sign(images, 0.1) - images).abs(), torch.full_like(images, 0.1), atol=1e-6)
    lengths = (gaussian(images, 0.05) - images).flatten(1).norm(dim=1)
    assert torch.allclose(lengths, torch.full_like(lengths, 0.05 * size), rtol=1e-4)
    most = (smooth(images, 0.1) - images).flatten(1).abs().amax(1)
    assert torch.allclose(most, torch.full_like(most, 0.1), atol=1e-6)
    steps = (smooth(images, 0.1) - images).diff(dim=-1).abs().amax()
    assert steps < (sign(images, 0.1) - images).diff(dim=-1).abs().amax()


def test_blur_shift_and_rounding_by_hand() -> None:
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 0.9
    assert torch.allclose(blur(x)[0, 0, 1:4, 1:4], torch.full((3, 3), 0.1))
    assert float(blur(x).sum()) == pytest.approx(0.9)
    assert float(shift(x)[0, 0, 2, 3]) == pytest.approx(0.9)
    assert float(shift(x).sum()) == pytest.approx(0.9)
    assert torch.equal(rounded(torch.tensor([[0.5, 1.0, 0.0]])), torch.tensor([[128 / 255, 1.0, 0.0]]))
    assert torch.equal(rounded(rounded(x)), rounded(x))


def test_every_control_stays_in_the_box_and_belongs_to_its_row(images: Tensor) -> None:
    made = noise_controls((2, 8, 8))
    assert {kind for kind, _ in made} == {"sign", "gaussian", "smooth", "blur", "shift", "round"}
    assert {kind for kind, _ in noise_controls((5,))} == {"sign", "gaussian", "round"}
    extreme = (images > 0.5).float()
    for (kind, _), change in made.items():
        for x in (images, extreme):
            changed = change(x)
            assert changed.shape == x.shape
            assert changed.min() >= 0, kind
            assert changed.max() <= 1, kind
            torch.testing.assert_close(change(x[2:3]), changed[2:3])
    for change in noise_controls((2, 8, 8), seed=1).values():
        assert change(images).shape == images.shape


def test_the_background_of_digits_is_known_and_left_alone() -> None:
    source = load("digits")
    assert background(source) == 0.0
    x = source.read(source.rows("test")[:20]).x
    threat = ThreatModel("linf", 0.1, still=0.0)
    changed = threat.project(sign(x, 0.1), x)
    assert (changed[x == 0] == 0).all()
    assert not torch.equal(changed, x)
    assert threat.allows(changed, x).all()
    assert not threat.allows(sign(x, 0.1), x).any()
    assert 0.2 < threat.free(x, 0.0).float().mean() < 0.9


def test_a_background_is_what_most_corners_share(generator: torch.Generator) -> None:
    x = torch.rand(40, 1, 6, 6, generator=generator)
    assert constant_background(x) is None
    x[:, :, 0], x[:, :, -1] = 0.25, 0.25
    assert constant_background(x) == 0.25
    x[:21, 0, 0, 0] = 0.5  # more than half have another corner
    assert constant_background(x) is None
    assert constant_background(torch.zeros(4, 9)) is None
    assert constant_background(torch.zeros(0, 1, 6, 6)) is None


def test_images_alone_are_blurred() -> None:
    with pytest.raises(UsageError, match="images"):
        blur(torch.zeros(3, 5))

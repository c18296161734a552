from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.codes import as_codec
from robustgen.errors import UsageError
from robustgen.evaluation.interpolation import CONTROL, Along, between, grids, over_grid, paths

T = torch.linspace(0, 1, 9)


@pytest.fixture(scope="module")
def detectors() -> dict[str, CalibratedDetector]:
    source = load("digits")
    return {
        "pca": CalibratedDetector.fit("pca", source, options={"components": 10}),
        "autoencoder": CalibratedDetector.fit("autoencoder", source, options={"epochs": 5, "code": 8}),
    }


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    return next(iter(load("digits").batches("test", 40))).x


@pytest.mark.parametrize("along", ["line", "arc"])
def test_a_way_ends_exactly_at_its_ends(along: Along, generator: torch.Generator) -> None:
    a, b = torch.randn(2, 20, 6, generator=generator)
    way = between(a, b, T, along)
    assert way.shape == (20, 9, 6)
    assert torch.equal(way[:, 0], a)
    assert torch.equal(way[:, -1], b)
    torch.testing.assert_close(between(b, a, T, along), way.flip(1), rtol=1e-4, atol=1e-5)


def test_an_arc_keeps_the_length_and_its_pace(generator: torch.Generator) -> None:
    a, b = torch.nn.functional.normalize(torch.randn(2, 20, 6, generator=generator), dim=2)
    way = between(a, b, T, "arc")
    torch.testing.assert_close(way.norm(dim=2), torch.ones(20, 9))
    turns = (way[:, 1:] * way[:, :-1]).sum(2).clamp(-1, 1).arccos()
    torch.testing.assert_close(turns, turns[:, :1].expand(20, 8), rtol=1e-3, atol=1e-3)
    for other in (a, -a, 2 * a):  # no plane to turn in, so the line is taken
        torch.testing.assert_close(between(a, other, T, "arc"), between(a, other, T, "line"), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("along", ["line", "arc"])
def test_a_grid_has_exact_corners_and_its_edges_are_paths(along: Along, generator: torch.Generator) -> None:
    corners = torch.randn(4, 5, generator=generator)
    grid = over_grid(corners, 9, along)
    torch.testing.assert_close(torch.stack([grid[0, 0], grid[0, -1], grid[-1, 0], grid[-1, -1]]), corners)
    if along == "line":
        assert torch.equal(grid[0, 0], corners[0])
        assert torch.equal(grid[-1, -1], corners[3])
        torch.testing.assert_close(grid[4, 4], corners.mean(0))
    torch.testing.assert_close(grid[0], between(corners[:1], corners[1:2], T, along)[0])
    torch.testing.assert_close(grid[:, 0], between(corners[:1], corners[2:3], T, along)[0])


@pytest.mark.parametrize("name", ["pca", "autoencoder"])
def test_the_corners_of_a_grid_are_the_reconstructed_inputs(
    name: str, detectors: dict[str, CalibratedDetector], inputs: torch.Tensor
) -> None:
    pixels, grid = grids({name: detectors[name]}, inputs[:4], 5)
    back = as_codec(detectors[name].detector, name).reconstruct(inputs[:4]).clamp(0, 1)
    for number, (row, column) in enumerate(((0, 0), (0, 4), (4, 0), (4, 4))):
        torch.testing.assert_close(grid.x[row, column], back[number], rtol=0, atol=1e-6)
        assert torch.equal(pixels.x[row, column], inputs[number])


def test_paths_of_a_linear_codec_are_straight_and_even(
    detectors: dict[str, CalibratedDetector], inputs: torch.Tensor
) -> None:
    """PCA is linear and its directions are orthonormal: nothing bends its path where nothing is cut off."""
    spec = replace(detectors["pca"].spec, low=-9.0, high=9.0)
    pixels, path = paths({"pca": replace(detectors["pca"], spec=spec)}, inputs[:20], inputs[20:], 9)
    assert pixels.name == CONTROL
    np.testing.assert_allclose(pixels.unevenness, 1, rtol=1e-4)
    np.testing.assert_allclose(pixels.detour, 1, rtol=1e-5)
    assert pixels.cycle is None
    assert path.cycle is not None
    assert path.cycle.max() < 1e-4
    np.testing.assert_allclose(path.unevenness, 1, rtol=1e-4)
    np.testing.assert_allclose(path.detour, 1, rtol=1e-5)
    assert paths({"pca": detectors["pca"]}, inputs[:20], inputs[20:])[1].detour.max() > 1.01


def test_a_path_is_judged_as_its_inputs_are(detectors: dict[str, CalibratedDetector], inputs: torch.Tensor) -> None:
    found = paths(detectors, inputs[:5], inputs[5:10], 7, batch_size=8)
    assert [one.name for one in found] == [CONTROL, "pca", "autoencoder"]
    for one in found:
        assert one.x.shape == (5, 7, 1, 8, 8)
        assert set(one.p_values) == {"pca", "autoencoder"}
        verdicts = detectors["pca"].judge(one.x[2])
        np.testing.assert_allclose(one.p_values["pca"][2], verdicts.p_value)
        np.testing.assert_array_equal(one.flagged["pca"][2], verdicts.flagged)
        assert (one.straight is None) == (one.name == CONTROL)
        if one.straight is not None:  # the same ends, judged the same
            ends = one.p_values["pca"][:, [0, -1]]
            np.testing.assert_allclose(one.straight["pca"][:, [0, -1]], ends, atol=1 / 300)
            middle = detectors["pca"].judge((one.x[:, 0] + one.x[:, -1]) / 2)
            np.testing.assert_allclose(one.straight["pca"][:, 3], middle.p_value, atol=1 / 300)
        said = one.summary()
        assert said["n"] == 5
        assert said["judges"]["pca"]["median_p_value"] == float(np.median(one.p_values["pca"][:, 1:-1]))
    only = paths({"pca": detectors["pca"]}, inputs[:1], inputs[1:2], 3, judges={"other": detectors["autoencoder"]})
    assert set(only[1].p_values) == {"other"}


def test_one_jump_is_told_from_an_even_path() -> None:
    """A way that stands still and jumps once: its largest step is all of its length."""
    from robustgen.evaluation.interpolation import _judged

    x = torch.zeros(1, 5, 1, 2, 2)
    x[:, 3:] = 1
    jump = _judged("toy", x, None, {}, 10)
    assert jump.unevenness[0] == 4
    assert jump.detour[0] == 1
    x[:, 4] = 0
    assert _judged("toy", x, None, {}, 10).detour[0] > 1e6  # out and back


def test_what_is_no_path(detectors: dict[str, CalibratedDetector], inputs: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="at least 3 steps"):
        paths(detectors, inputs[:1], inputs[1:2], 2)
    with pytest.raises(UsageError, match="at least 3 x 3"):
        grids(detectors, inputs[:4], 2)
    with pytest.raises(UsageError, match="unknown way between codes"):
        paths(detectors, inputs[:1], inputs[1:2], 5, along="curve")  # type: ignore[arg-type]
    k_means = CalibratedDetector.fit("k-means", load("digits"), options={"clusters": 4})
    with pytest.raises(UsageError, match="k-means has no code"):
        paths({"k-means": k_means}, inputs[:1], inputs[1:2])

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch

from robustgen.data.source import DataSpec
from robustgen.detectors.pca import PCADetector
from robustgen.errors import UsageError
from robustgen.evaluation.compression import Quantiser, compress, distortion, lossless, psnr

IMAGES = DataSpec("toy", "image", (1, 8, 8))
TABLE = DataSpec("toy", "table", (12,))


@pytest.mark.parametrize("bits", [1, 3, 8, 16])
def test_a_level_is_at_most_half_a_step_off(bits: int, generator: torch.Generator) -> None:
    codes = 10 * torch.randn(500, 4, generator=generator) - 3
    quantiser = Quantiser.of(codes, bits)
    levels = quantiser.levels(codes)
    assert (levels.min(), levels.max()) == (0, 2**bits - 1)
    off = (quantiser.values(levels) - codes).abs()
    half = (quantiser.high - quantiser.low) / (2**bits - 1) / 2
    assert bool((off <= half * 1.0001 + 1e-5).all())


def test_levels_are_packed_without_gaps(generator: torch.Generator) -> None:
    codes = torch.rand(50, 3, generator=generator)
    quantiser = Quantiser.of(codes, 5)
    levels = quantiser.levels(codes)
    packed = quantiser.packed(levels)
    assert len(packed) == -(-5 * 150 // 8)
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))[: 5 * 150].reshape(3, 50, 5)
    np.testing.assert_array_equal(bits @ (1 << np.arange(4, -1, -1)), levels.T.numpy())


def test_a_constant_code_value_and_whole_numbers_survive() -> None:
    codes = torch.tensor([[2.0, 0.0], [2.0, 15.0], [2.0, 7.0]])
    quantiser = Quantiser.of(codes, 4)
    torch.testing.assert_close(quantiser.values(quantiser.levels(codes)), codes)
    assert torch.equal(Quantiser.of(codes, 32).values(Quantiser.of(codes, 32).levels(codes)), codes)
    for bits in (0, 17, 31, 33):
        with pytest.raises(UsageError, match="1 to 16 bits"):
            Quantiser.of(codes, bits)


def test_inputs_in_a_subspace_are_compressed_without_loss(generator: torch.Generator) -> None:
    """Rank-2 inputs through two components: no error at 32 bits, and with fewer that of the quantiser, bounded by the
    half steps (the components are orthonormal).
    """
    x = (torch.rand(300, 2, generator=generator) @ torch.rand(2, 12, generator=generator)) / 2
    codec = PCADetector(2).fit(x)
    code = codec.encode(x)
    exact = compress(codec, x, code, 32, TABLE)
    assert exact.mse.max() < 1e-12
    assert exact.rate == 64
    assert exact.ssim is None
    losses = [compress(codec, x, code, bits, TABLE) for bits in (2, 4, 8)]
    for loss in losses:
        half = (code.amax(0) - code.amin(0)) / (2**loss.bits - 1) / 2
        assert loss.mse.max() <= float(half.square().sum()) / 12 * 1.001
        assert loss.rate == pytest.approx(2 * loss.bits + 2 * 64 / 300)
        assert loss.deflated < loss.rate + 8 * 20
    assert losses[0].psnr < losses[1].psnr < losses[2].psnr < exact.psnr


def test_known_distances() -> None:
    black, white = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    mse, ssim = distortion(black, white, IMAGES)
    assert (mse[0], psnr(mse[0])) == (1.0, 0.0)
    assert ssim is not None
    assert ssim[0] == pytest.approx(1e-4 / (1 + 1e-4), rel=1e-3)  # Wang et al. 2004 with C1 = 0.01^2, no variance
    same, alike = distortion(white, 7 * white, IMAGES)  # cut off at white
    assert alike is not None
    assert (same[0], alike[0]) == (0, pytest.approx(1))
    assert psnr(0.0) == float("inf")
    assert psnr(0.01) == pytest.approx(20)


def test_lossless_bits_are_those_of_the_files() -> None:
    flat = torch.zeros(2, 1, 8, 8)
    flat[1] = torch.arange(64).reshape(1, 8, 8) / 255
    found = lossless(flat, IMAGES)
    assert found["raw"].tolist() == [512, 512]
    assert found["zlib"][0] == 8 * len(zlib.compress(bytes(64), 9))
    assert found["zlib"][1] == 8 * len(zlib.compress(bytes(range(64)), 9))
    assert found["png"][0] < found["png"][1]
    assert set(lossless(torch.rand(3, 12), TABLE)) == {"raw", "zlib"}
    assert lossless(torch.rand(3, 12), TABLE)["raw"].tolist() == [384] * 3

"""Winograd convolutions equal XLA's own, in value and in both gradients."""

from functools import partial

import jax
import numpy as np
import pytest

from common import winograd
from tests.common.convolution_cases import arrays, by_lax, check_same

# (H, C, K) of every 3x3 stride-1 convolution of ResNet-18 and of the CNN, and unusual maps.
SHAPES = [
    (32, 64, 64),
    (16, 128, 128),
    (8, 256, 256),
    (4, 512, 512),
    (16, 32, 64),
    (16, 64, 64),
    (8, 64, 128),
    (8, 128, 128),
    (4, 128, 256),
    (6, 32, 48),
    (2, 32, 48),
    ((4, 8), 32, 48),
    ((8, 12), 32, 48),
    ((2, 6), 32, 48),
]


@pytest.mark.parametrize("size, channels, outputs", SHAPES)
def test_conv3x3_equals_lax(size, channels, outputs):
    check_same(winograd.conv3x3, by_lax(), *arrays(3, size, channels, outputs))


@pytest.mark.parametrize("batch", [1, 2, 4, 5])
def test_any_batch(batch):
    x, kernel = arrays(batch, 32, 16, 16)
    assert winograd.chunk_size(x) <= 2
    check_same(winograd.conv3x3, by_lax(), x, kernel)


@pytest.mark.parametrize("size", [8, (4, 12)])
@pytest.mark.parametrize("m, chunk", [(2, 1), (2, 6), (4, 1), (4, 2)])
def test_tiles_and_chunks_change_nothing(m, chunk, size):
    x, kernel = arrays(6, size, 5, 7)
    y, pull = jax.vjp(by_lax(), x, kernel)
    dx, dkernel = pull(y)
    near = partial(np.testing.assert_allclose, rtol=1e-4)
    near(winograd.forward(x, kernel, m, chunk), y, atol=1e-3)
    got = winograd.gradients(x, kernel, y, m, chunk)
    near(got[0], dx, atol=1e-2)
    near(got[1], dkernel, atol=1e-1)
    near(winograd.kernel_gradient(x, y, m, chunk), dkernel, atol=1e-1)


@pytest.mark.parametrize(
    "shape, images",
    [
        ((128, 32, 32, 64), 2),
        ((2000, 8, 8, 256), 25),
        ((128, 32, 32, 3), 16),
        ((5, 4, 4, 8), 5),
        ((127, 8, 8, 64), 1),
        ((0, 8, 8, 64), 1),
    ],
)
def test_a_chunk_divides_the_batch_and_holds_more_of_thin_maps(shape, images):
    assert winograd.chunk_size(jax.ShapeDtypeStruct(shape, "float32")) == images

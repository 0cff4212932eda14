"""Winograd convolutions equal XLA's own, in value and in both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax

from common import winograd

# (H, C, K) of every 3x3 stride-1 convolution of ResNet-18 and of the CNN, and one map of 6.
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
]
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def arrays(batch: int, size: int, channels: int, outputs: int, window: int = 3) -> list[Array]:
    rng = np.random.default_rng(size * channels + outputs)
    shapes = [(batch, size, size, channels), (window, window, channels, outputs)]
    return [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes]


def value_and_gradients(conv, x: Array, kernel: Array) -> tuple[Array, Array, Array]:
    """The output and both gradients, for a gradient of the output that varies."""

    @jax.jit
    def run(x, kernel):
        y, gradients = jax.vjp(conv, x, kernel)
        return y, *gradients(jnp.cos(jnp.arange(y.size)).reshape(y.shape).astype(y.dtype))

    return run(x, kernel)


def check_same(conv, reference, x: Array, kernel: Array, tolerance: float = 1e-5) -> None:
    for got, expected in zip(
        value_and_gradients(conv, x, kernel),
        value_and_gradients(reference, x, kernel),
        strict=True,
    ):
        assert got.dtype == expected.dtype and got.shape == expected.shape
        error = jnp.linalg.norm((got - expected).astype(jnp.float32))
        assert error <= tolerance * jnp.linalg.norm(expected.astype(jnp.float32))


def by_lax(stride: int = 1, padding="SAME", **options):
    def conv(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=DIMENSIONS, **options
        )

    return conv


@pytest.mark.parametrize("size, channels, outputs", SHAPES)
def test_conv3x3_equals_lax(size, channels, outputs):
    check_same(winograd.conv3x3, by_lax(), *arrays(3, size, channels, outputs))


@pytest.mark.parametrize("batch", [1, 2, 4, 5])
def test_any_batch(batch):
    x, kernel = arrays(batch, 32, 8, 8)
    check_same(winograd.conv3x3, by_lax(), x, kernel)


@pytest.mark.parametrize("m, chunk", [(2, 1), (2, 6), (4, 1), (4, 2)])
def test_tiles_and_chunks_change_nothing(m, chunk):
    x, kernel = arrays(6, 8, 5, 7)

    def gradient(x, kernel):
        y, pull = jax.vjp(by_lax(), x, kernel)
        return y, pull(y)[1]

    y, expected = gradient(x, kernel)
    np.testing.assert_allclose(winograd.forward(x, kernel, m, chunk), y, rtol=1e-4, atol=1e-3)
    got = winograd.kernel_gradient(x, y, m, chunk)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-1)

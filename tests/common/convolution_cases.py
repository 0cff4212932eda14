"""Arrays for convolutions, and the comparison with XLA's own, in value and in both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def arrays(
    batch: int, size: int | tuple[int, int], channels: int, outputs: int, window: int = 3
) -> list[Array]:
    """Images, of one size or of a height and a width, and a kernel."""
    height, width = size if isinstance(size, tuple) else (size, size)
    rng = np.random.default_rng(height * channels + outputs)
    shapes = [(batch, height, width, channels), (window, window, channels, outputs)]
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

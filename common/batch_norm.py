"""Batch normalisation and the activation after it, with a backward pass that is written out.

    y = f(z),  z = s (x - m) / d + b,  m and d^2 - epsilon mean and variance of x over B H W = N

With g = dy f'(z) and h = (x - m) / d, the gradients are (Ioffe and Szegedy 2015, arXiv 1502.03167)

    db = sum g,  ds = sum g h,  dx = s / d (g - (db + h ds) / N)

Only x and numbers for each channel are kept for them; g and h are computed again, which costs less
than to write them to memory and to read them. Sums are in float32 whatever the type of x.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

Activation = Callable[[Array], Array]
Statistics = tuple[Array, Array]  # mean and 1 / d, float32 [C]

AXES = (0, 1, 2)


def over_devices(value: Array, axis_name: str | None) -> Array:
    """The mean over the devices of an axis, if there is one."""
    return value if axis_name is None else jax.lax.pmean(value, axis_name)


def affine(x: Array, statistics: Statistics, scale: Array, bias: Array) -> Array:
    """z, float32."""
    mean, inverse = statistics
    factor = scale * inverse
    return x.astype(jnp.float32) * factor + (bias - mean * factor)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalise(
    x: Array,
    scale: Array,
    bias: Array,
    activation: Activation,
    epsilon: float,
    axis_name: str | None,
) -> tuple[Array, Array, Array]:
    """Normalise by the statistics of the batch.

    Args:
        x: [B, H, W, C].
        scale, bias: float32 [C].
        activation: f, elementwise.
        epsilon: added to the variance.
        axis_name: the device axis over which the batch is split, if it is.

    Returns:
        y, of the type and shape of x, and mean and variance, float32 [C], which have no gradient.
    """
    return normalise_forward(x, scale, bias, activation, epsilon, axis_name)[0]


def normalise_forward(
    x: Array,
    scale: Array,
    bias: Array,
    activation: Activation,
    epsilon: float,
    axis_name: str | None,
) -> tuple[tuple[Array, Array, Array], tuple]:
    wide = x.astype(jnp.float32)
    mean = over_devices(wide.mean(AXES), axis_name)
    square = over_devices(jnp.square(wide).mean(AXES), axis_name)
    variance = jnp.maximum(square - jnp.square(mean), 0)
    statistics = (mean, jax.lax.rsqrt(variance + epsilon))
    y = activation(affine(x, statistics, scale, bias)).astype(x.dtype)
    return (y, mean, variance), (x, scale, bias, statistics)


def normalise_backward(
    activation: Activation,
    epsilon: float,
    axis_name: str | None,
    saved: tuple,
    gradients: tuple[Array, Array, Array],
) -> tuple[Array, Array, Array]:
    x, scale, bias, statistics = saved
    dy = gradients[0].astype(jnp.float32)
    mean, inverse = statistics
    _, pull = jax.vjp(activation, affine(x, statistics, scale, bias))
    (g,) = pull(dy)
    h = (x.astype(jnp.float32) - mean) * inverse
    count = x.size // x.shape[-1]
    db, ds = g.sum(AXES), (g * h).sum(AXES)
    mean_db, mean_ds = (over_devices(d / count, axis_name) for d in (db, ds))
    dx = (scale * inverse) * (g - (mean_db + h * mean_ds))
    return dx.astype(x.dtype), ds, db


normalise.defvjp(normalise_forward, normalise_backward)


class BatchNorm(nn.Module):
    """Batch normalisation of [B, H, W, C], then `activation`; variables as in `nn.BatchNorm`.

    Attributes:
        momentum: share of the running statistics that a step keeps.
        epsilon: added to the variance.
        use_scale: whether there is a learnt scale; without, it is 1.
        activation: elementwise.
        axis_name: the device axis under `pmap`, None on one device.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    use_scale: bool = True
    activation: Activation = nn.relu
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        size = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, size)
        variance = self.variable("batch_stats", "var", jnp.ones, size)
        ones: Any = nn.initializers.ones
        scale = self.param("scale", ones, size) if self.use_scale else jnp.ones(size)
        bias = self.param("bias", nn.initializers.zeros, size)
        if not train:
            statistics = (mean.value, jax.lax.rsqrt(variance.value + self.epsilon))
            return self.activation(affine(x, statistics, scale, bias)).astype(x.dtype)
        y, *new = normalise(x, scale, bias, self.activation, self.epsilon, self.axis_name)
        if not self.is_initializing():
            for running, value in zip((mean, variance), new, strict=True):
                running.value = self.momentum * running.value + (1 - self.momentum) * value
        return y


def identity(x: Array) -> Array:
    """No activation."""
    return x

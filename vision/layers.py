"""The layers of the image models; x is [B, H, W, C], channels last."""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from common.batch_norm import BatchNorm, identity
from common.convolution import conv_general_dilated

# He et al. 2015, arXiv 1502.01852: variance 2 / fan_out keeps the signal's size through ReLU.
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")

# How convolutions are computed: `auto` takes on CPUs the forms that were measured to win there;
# `xla` is XLA's own everywhere.
CONVOLUTIONS = {"auto": conv_general_dilated, "xla": None}


def scaled(channels: int, width: float) -> int:
    """Channels times the width multiplier, at least one."""
    return max(1, round(channels * width))


class Pool(nn.Module):
    """Max or average pooling; a module so that layer tables show it.

    Maps that the window does not divide are padded at the end, with nothing for the
    maximum and with zeros, which then count, for the average (report A's "zero padding
    of odd sizes"), or cut there with `padding="VALID"`.
    """

    kind: str = "max"
    window: int = 2
    stride: int = 2
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.window != self.stride:
            pool = {"max": nn.max_pool, "avg": nn.avg_pool}[self.kind]
            shape, strides = (self.window, self.window), (self.stride, self.stride)
            return pool(x, shape, strides=strides, padding=self.padding)
        w = self.window
        if self.padding == "SAME":
            empty = -jnp.inf if self.kind == "max" else 0
            pads = ((0, 0), (0, -x.shape[1] % w), (0, -x.shape[2] % w), (0, 0))
            x = jnp.pad(x, pads, constant_values=empty)
        x = x[:, : x.shape[1] // w * w, : x.shape[2] // w * w]
        if self.kind == "avg":
            return reduce(jnp.add, windows(x, w)) / w**2
        return max_pool(x, w)


def windows(x: Array, w: int) -> list[Array]:
    """The w^2 places of each window: arrays [B, H / w, W / w, C]."""
    return [x[:, i::w, j::w] for i in range(w) for j in range(w)]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: Array, w: int) -> Array:
    """The maximum over windows of w x w that do not overlap; w divides both sides of the map.

    The first place of a maximum has its gradient. Elementwise, and on CPUs many times faster
    than XLA's reduce-window and select-and-scatter.
    """
    return reduce(jnp.maximum, windows(x, w))


def max_pool_backward(w: int, x: Array, dy: Array) -> tuple[Array]:
    # The places are compared with one another, never with the maximum found before: XLA may work
    # x out again for this, and round it differently.
    first, *others = windows(x, w)
    largest, place = first, jnp.zeros(dy.shape, jnp.int8)
    for i, part in enumerate(others, 1):
        better = part > largest
        largest, place = jnp.where(better, part, largest), jnp.where(better, jnp.int8(i), place)
    parts = [jnp.where(place == i, dy, 0) for i in range(w * w)]
    rows = [jnp.stack(parts[i : i + w], 3) for i in range(0, w * w, w)]  # [B, H / w, W / w, w, C]
    return (jnp.stack(rows, 2).reshape(x.shape),)


max_pool.defvjp(lambda x, w: (max_pool(x, w), x), max_pool_backward)


class GlobalPool(nn.Module):
    """Mean (or maximum) over the whole map: [B, H, W, C] -> [B, C]."""

    kind: str = "avg"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return x.max(axis=(1, 2)) if self.kind == "max" else x.mean(axis=(1, 2))


class ConvNorm(nn.Module):
    """Convolution, then batch normalisation over the batch of all devices, then ReLU.

    Without batch normalisation the convolution has a bias in its place. `conv` chooses how
    the convolution is computed: see `CONVOLUTIONS`.
    """

    channels: int
    size: int = 3
    stride: int = 1
    padding: int | str = "SAME"
    batch_norm: bool = True
    relu: bool = True
    conv: str = "auto"
    kernel_init: Callable = he_normal
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = nn.Conv(
            self.channels,
            (self.size, self.size),
            strides=self.stride,
            padding=self.padding,
            use_bias=not self.batch_norm,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            conv_general_dilated=CONVOLUTIONS[self.conv],
            name="conv",
        )(x)
        if self.batch_norm:
            activation = nn.relu if self.relu else identity
            return BatchNorm(activation=activation, axis_name=self.axis_name, name="norm")(x, train)
        return nn.relu(x) if self.relu else x


class ZeroPadShortcut(nn.Module):
    """Parameter-free shortcut: average pooling of the map, zeros for the new channels."""

    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.stride > 1:
            x = Pool("avg", self.stride, self.stride, name="pool")(x)
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.channels - x.shape[-1])))


def conv_norm_of(model: Any) -> Callable[..., ConvNorm]:
    """`ConvNorm` with the settings that a whole model shares."""
    return partial(
        ConvNorm,
        batch_norm=model.batch_norm,
        conv=model.conv,
        dtype=model.dtype,
        axis_name=model.axis_name,
    )

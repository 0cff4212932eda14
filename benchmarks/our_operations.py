"""Our operations of a ResNet-18 step, each as a program of its own, without PyTorch."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.our_steps import waiting
from benchmarks.problems import (
    CONVOLUTIONS,
    MAPS,
    Convolution,
    make_arrays,
    make_factors,
    make_maps,
    on_map,
)
from common.batch_norm import Activation, identity, normalise
from common.convolution import conv_general_dilated
from common.parallel import local_devices

NUMBERS = ("NHWC", "HWIO", "NHWC")


def calls(batch_size: int, dtype: str) -> dict[str, Callable]:
    """By name: convolutions' passes, what is done on maps with its gradients, a matrix product.

    Args:
        batch_size: B.
        dtype: float32 or bfloat16.
    """
    local_devices(1)
    found: dict[str, Callable] = {}
    for layer in CONVOLUTIONS:
        convolve = partial(convolution, layer)
        kernel, x, dy = place(make_arrays(layer.shapes(batch_size)), dtype)
        made = (
            waiting(jax.jit(convolve), x, kernel),
            waiting(gradient(convolve, 0), x, kernel, dy),
            waiting(gradient(convolve, 1), x, kernel, dy),
        )
        found |= zip(layer.operations, made, strict=True)
    for height, channels in MAPS:
        x, other, dy = place(make_maps(batch_size, height, channels), dtype)
        scale, bias = jnp.ones(channels), jnp.zeros(channels)
        made = (
            waiting(norm(nn.relu), x, scale, bias, dy),
            waiting(norm(identity), x, scale, bias, dy),
            waiting(addition, x, other, dy),
        )
        found |= zip(on_map(height, channels), made, strict=True)
    product: Callable = jax.jit(jnp.matmul)
    return found | {"matrix product": waiting(product, *place(make_factors(), dtype))}


def place(arrays: Iterable[np.ndarray], dtype: str) -> list[jax.Array]:
    """The arrays on the device, in this type."""
    return [jax.device_put(jnp.asarray(array, jnp.dtype(dtype))) for array in arrays]


def convolution(layer: Convolution, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """As the models make it: on a CPU in the form of `common.convolution`."""
    pad = (layer.size // 2,) * 2
    strides, padding = (layer.stride,) * 2, (pad, pad)
    return conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NUMBERS)


def gradient(convolve: Callable, argument: int) -> Callable:
    """(x, kernel, dy) -> the gradient by one of them."""
    return jax.jit(lambda x, kernel, dy: jax.vjp(convolve, x, kernel)[1](dy)[argument])


def norm(activation: Activation) -> Callable:
    """(x, scale, bias, dy) -> what normalisation and activation make of x, and its gradients."""

    def forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        return normalise(x, scale, bias, activation, 1e-5, None)[0]

    @jax.jit
    def both(x: jax.Array, scale: jax.Array, bias: jax.Array, dy: jax.Array) -> Any:
        y, pull = jax.vjp(forward, x, scale, bias)
        return y, pull(dy)

    return both


@jax.jit
def addition(x: jax.Array, other: jax.Array, dy: jax.Array) -> Any:
    """A block's end, and the gradient by the first of its branches; the other's is the same."""
    y, pull = jax.vjp(lambda x: nn.relu(x + other), x)
    return y, pull(dy)

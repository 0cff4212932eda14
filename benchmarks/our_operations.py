"""Our operations of a ResNet-18 step, each as a program of its own, without PyTorch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks.problems import CONVOLUTIONS, MAPS, PRODUCT, Convolution, make_arrays
from common.batch_norm import normalise
from common.convolution import conv_general_dilated
from common.parallel import local_devices

NUMBERS = ("NHWC", "HWIO", "NHWC")


def calls(batch_size: int, dtype: str) -> dict[str, Callable]:
    """By name: every convolution and its two gradients, normalisation, a matrix product."""
    local_devices(1)
    found: dict[str, Callable] = {}
    for layer in CONVOLUTIONS:
        convolve = partial(convolution, layer)
        kernel, x, dy = place(layer.shapes(batch_size), dtype)
        forward: Callable = jax.jit(convolve)
        found |= {
            f"{layer.name}, forward": waiting(forward, x, kernel),
            f"{layer.name}, input's gradient": waiting(gradient(convolve, 0), x, kernel, dy),
            f"{layer.name}, kernel's gradient": waiting(gradient(convolve, 1), x, kernel, dy),
        }
    for height, channels in MAPS:
        shape = (batch_size, height, height, channels)
        x, dy = place((shape, shape), dtype)
        scale, bias = jnp.ones(channels), jnp.zeros(channels)
        found[f"{channels} channels on {height}x{height}"] = waiting(norm, x, scale, bias, dy)
    a, b = place(((PRODUCT, PRODUCT), (PRODUCT, PRODUCT)), dtype)
    return found | {"product": waiting(jax.jit(jnp.matmul), a, b)}


def place(shapes: tuple, dtype: str) -> list[jax.Array]:
    """Normal numbers of these shapes, on the device."""
    return [jax.device_put(jnp.asarray(array, jnp.dtype(dtype))) for array in make_arrays(shapes)]


def convolution(layer: Convolution, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """As the models make it: on a CPU in the form of `common.convolution`."""
    pad = (layer.size // 2,) * 2
    strides, padding = (layer.stride,) * 2, (pad, pad)
    return conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NUMBERS)


def gradient(convolve: Callable, argument: int) -> Callable:
    """(x, kernel, dy) -> the gradient by one of them."""
    return jax.jit(lambda x, kernel, dy: jax.vjp(convolve, x, kernel)[1](dy)[argument])


@jax.jit
def norm(x: jax.Array, scale: jax.Array, bias: jax.Array, dy: jax.Array) -> Any:
    """Normalisation and ReLU, and their gradients."""

    def forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        return normalise(x, scale, bias, nn.relu, 1e-5, None)[0]

    y, pull = jax.vjp(forward, x, scale, bias)
    return y, pull(dy)


def waiting(function: Callable, *arguments: Any) -> Callable[[], Any]:
    """A call that returns when its work is done."""
    return lambda: jax.block_until_ready(function(*arguments))

"""The network of the speedrun: a small CNN behind a fixed layer that whitens patches.

Sources: Jordan 2024 (airbench), arXiv 2404.00498; Page 2019, "How to train your ResNet".
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from common.batch_norm import BatchNorm
from common.convolution import conv_nhwc
from common.state import TrainState
from vision.layers import CONVOLUTIONS, Pool, scaled

PATCH = 2  # pixels of a side
# Added to the variances, so that filters of hardly any variance do not amplify noise.
LEAST_VARIANCE = 5e-4
COLLECTION, NAME = "batch_stats", "whitening"  # statistics of the images, as those of BatchNorm


def partial_identity(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """Kernel [h, w, C, K] whose first min(C, K) filters pass one channel on; others are uniform."""
    scale = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    kernel = scale(key, shape, dtype)
    n = min(shape[2:])
    centre = jnp.zeros((*shape[:3], n), dtype)
    centre = centre.at[shape[0] // 2, shape[1] // 2, :n].set(jnp.eye(n, dtype=dtype))
    return kernel.at[..., :n].set(centre)


class ConvGroup(nn.Module):
    """Two 3x3 convolutions, a 2x2 maximum after the first; normalisation and GELU after both."""

    channels: int
    conv: str
    dtype: Any
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for i in (1, 2):
            x = nn.Conv(
                self.channels,
                (3, 3),
                use_bias=False,
                kernel_init=partial_identity,
                dtype=self.dtype,
                conv_general_dilated=CONVOLUTIONS[self.conv],
                name=f"conv{i}",
            )(x)
            if i == 1:
                x = Pool("max", name="pool")(x)
            norm = BatchNorm(
                momentum=0.6,
                use_scale=False,
                activation=nn.gelu,
                axis_name=self.axis_name,
                name=f"norm{i}",
            )
            x = norm(x, train)
        return x


class AirBench(nn.Module):
    """Whitened 2x2 patches and their negatives, three `ConvGroup`s, maximum, linear head.

    Even maps of 32, 16, 8 and 4 pixels, where airbench has 31, 15, 7 and 3. The whitening
    filters are variables without a gradient: see `whiten`.
    """

    num_classes: int
    channels: Sequence[int] = (64, 256, 256)
    width: float = 1.0
    conv: str = "auto"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        n = PATCH**2 * x.shape[-1]
        filters = self.variable(
            COLLECTION, NAME, lambda: jnp.eye(n).reshape(PATCH, PATCH, -1, n)
        ).value
        x = conv_nhwc(x.astype(self.dtype), filters.astype(self.dtype), 1, ((0, 1), (0, 1)))
        x = nn.gelu(jnp.concatenate([x, -x], -1))
        for i, channels in enumerate(self.channels, 1):
            size = scaled(channels, self.width)
            group = ConvGroup(size, self.conv, self.dtype, self.axis_name, name=f"group{i}")
            x = group(x, train)
        x = x.max(axis=(1, 2))
        head = nn.Dense(
            self.num_classes,
            use_bias=False,
            kernel_init=nn.initializers.normal(1.0),
            dtype=self.dtype,
            name="head",
        )
        return head(x).astype(jnp.float32) / x.shape[-1]


def whitening_filters(images: Array) -> Array:
    """Filters float32 [2, 2, C, 4 C] that make patches of the images white.

    They are the eigenvectors of the patches' covariance, of the largest variance first, each
    over the deviation in its direction.

    Args:
        images: float32 [N, H, W, C], normalised as the model sees them.
    """
    size = images.shape[1] - PATCH + 1
    patches = jnp.stack(
        [images[:, i : i + size, j : j + size] for i in range(PATCH) for j in range(PATCH)], 3
    ).reshape(-1, PATCH**2 * images.shape[-1])
    covariance = np.asarray(patches.T @ patches / len(patches), np.float64)
    variances, vectors = np.linalg.eigh(covariance)
    filters = (vectors / np.sqrt(variances + LEAST_VARIANCE))[:, ::-1]
    return jnp.asarray(filters, jnp.float32).reshape(PATCH, PATCH, images.shape[-1], -1)


def whiten(state: TrainState, sample: Callable[[], Array]) -> TrainState:
    """The state with the whitening filters of a sample of images, if its model has any.

    `sample` gives images as `whitening_filters` takes them; for other models it is not called.
    """
    if NAME not in state.batch_stats:
        return state
    batch_stats = state.batch_stats | {NAME: jax.device_put(whitening_filters(sample()))}
    ema = state.ema and state.ema | {"batch_stats": jax.tree.map(jnp.copy, batch_stats)}
    return dataclasses.replace(state, batch_stats=batch_stats, ema=ema)

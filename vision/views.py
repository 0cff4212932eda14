"""Test-time augmentation: the logits of several views of an image, averaged.

Its use is told beside every score that it made: it costs as many forward passes as views.
Source: Jordan 2024 (airbench), arXiv 2404.00498, whose six views are `shift`.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

# Weight and offset in pixels (down and right alike) of each place; every view also mirrored.
PLACES: dict[str, tuple[tuple[float, int], ...]] = {
    "none": (),
    "flip": ((1.0, 0),),
    "shift": ((0.5, 0), (0.25, -1), (0.25, 1)),
}


def moved(images: Array, pixels: int) -> Array:
    """Images [B, H, W, C] moved down and right by so many pixels, the border mirrored."""
    if not pixels:
        return images
    n = abs(pixels)
    padded = jnp.pad(images, ((0, 0), (n, n), (n, n), (0, 0)), mode="reflect")
    start = n - pixels
    return padded[:, start : start + images.shape[1], start : start + images.shape[2]]


def average_logits(logits: Callable[[Array], Array], images: Array, tta: str) -> Array:
    """Logits [B, K], the weighted mean over the views of a key of `PLACES`."""
    if not PLACES[tta]:
        return logits(images)
    parts = []
    for weight, pixels in PLACES[tta]:
        view = moved(images, pixels)
        parts.append(weight * (logits(view) + logits(view[:, :, ::-1])) / 2)
    return sum(parts[1:], parts[0])

"""The operations that --augment can name, and the arguments of each.

The maths is written for one image [H, W, C]; vision.augment maps it over the batch.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vision import warp

# One image: (key, image [H, W, C]) -> image [H, W, C].


def flip(key: jax.Array, image: jax.Array, *, probability: float) -> jax.Array:
    """Mirror left and right with the given probability."""
    return _mirror(image, jax.random.bernoulli(key, probability))


def crop(key: jax.Array, image: jax.Array, *, pad: int, fill: str) -> jax.Array:
    """Pad every side by `pad` pixels (zeros or reflect), cut the old size at a uniform place."""
    sides = ((pad, pad), (pad, pad), (0, 0))
    padded = jnp.pad(image, sides, mode="constant" if fill == "zeros" else fill)
    row, column = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)


def cutout(key: jax.Array, image: jax.Array, *, size: int, fill: float) -> jax.Array:
    """Grey out a square of `size` pixels, its centre uniform, clipped at the border.

    Source: DeVries and Taylor 2017, arXiv 1708.04552. They put zeros after normalisation,
    which is the mean colour; images are not yet normalised here, so fill is 0.5 by default.
    """
    return jnp.where(_square(key, image.shape, size, size), fill, image)


def noise(key: jax.Array, image: jax.Array, *, sigma: float) -> jax.Array:
    """Add Gaussian noise of deviation `sigma`, in units of the [0, 1] range, unclipped."""
    return image + sigma * jax.random.normal(key, image.shape)


def alternating_flip(index: jax.Array, epoch: jax.Array, image: jax.Array) -> jax.Array:
    """Mirror every second epoch; a hash of the image's index picks the odd or the even ones.

    Two successive epochs thus show both sides of every image.
    Source: Jordan 2024 (airbench), arXiv 2404.00498.
    """
    first = jax.random.bits(jax.random.fold_in(jax.random.key(0), index)) & 1
    return _mirror(image, (first + epoch.astype(jnp.uint32)) % 2 == 1)


def _mirror(image: jax.Array, flipped: jax.Array) -> jax.Array:
    """Mirror left and right where `flipped`, a bool []."""
    # A gather reads every pixel once. The plain where(flipped, image[:, ::-1], image) reads it
    # twice, and XLA, fusing the two, works out twice whatever warp stands before it.
    columns = jnp.arange(image.shape[1])
    return image[:, jnp.where(flipped, columns[::-1], columns)]


# Two images: (key, image [H, W, C], other [H, W, C]) -> (image [H, W, C], share of the other []).


def mixup(
    key: jax.Array, image: jax.Array, other: jax.Array, *, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Blend with the next image; its share is Beta(alpha, alpha). Zhang 2018, arXiv 1710.09412."""
    share = _beta(key, alpha)
    return (1 - share) * image + share * other, share


def cutmix(
    key: jax.Array, image: jax.Array, other: jax.Array, *, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Paste a box of the next image, its area Beta(alpha, alpha) before clipping at the border.

    The share is the area that was really pasted. Source: Yun et al. 2019, arXiv 1905.04899.
    """
    area_key, box_key = jax.random.split(key)
    side = jnp.sqrt(_beta(area_key, alpha))
    height, width, _ = image.shape
    box = _square(box_key, image.shape, jnp.int32(side * height), jnp.int32(side * width))
    return jnp.where(box, other, image), jnp.mean(box, dtype=jnp.float32)


def _beta(key: jax.Array, alpha: float) -> jax.Array:
    """A number of the Beta(alpha, alpha) distribution, from Bailey's formula for Student's t.

    jax.random.beta gives the same distribution, but its rejection loops take XLA seconds to
    compile. Source: Bailey 1994, Mathematics of Computation 62; Devroye 1996, WSC.
    """
    radius, angle = jax.random.uniform(key, (2,))
    power, cosine = radius ** (1 / alpha), jnp.cos(2 * jnp.pi * angle)
    along = (1 - power) * cosine**2
    return (1 + jnp.sign(cosine) * jnp.sqrt(along / (power + along))) / 2


def _square(key: jax.Array, shape: tuple[int, ...], height, width) -> jax.Array:
    """Mask bool [H, W, 1] of a box with its centre uniform over the image, clipped."""
    row, column = jax.random.randint(key, (2,), 0, jnp.array(shape[:2]))
    rows = jnp.arange(shape[0])[:, None, None] - (row - height // 2)
    columns = jnp.arange(shape[1])[None, :, None] - (column - width // 2)
    return (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)


@dataclasses.dataclass(frozen=True)
class Argument:
    """One argument of an operation; its kind is int, float, or the tuple of its choices."""

    name: str
    kind: type | tuple[str, ...]
    default: int | float | str
    low: float = 0
    high: float = math.inf

    def read(self, text: str) -> int | float | str:
        """The value of `text`; ValueError says what was expected."""
        if isinstance(self.kind, tuple):
            if text in self.kind:
                return text
            raise ValueError(f"one of {', '.join(self.kind)}")
        noun = "a whole number" if self.kind is int else "a number"
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan
        if self.low <= value <= self.high and value < math.inf:
            return value
        limits = f"of at least {self.low}" if self.high == math.inf else ""
        raise ValueError(f"{noun} {limits or f'from {self.low} to {self.high}'}")


@dataclasses.dataclass(frozen=True)
class Operation:
    """What stands behind a name in --augment.

    Kinds: bytes (one image, uint8 will do), image (one image, float32), indexed (needs
    index and epoch), affine (draws a matrix), pair (mixes with the next image).
    """

    kind: str
    apply: Callable
    arguments: tuple[Argument, ...] = ()

    @property
    def summary(self) -> str:
        """One line for people: what it does to an image."""
        return str(self.apply.__doc__).splitlines()[0]

    @property
    def defaults(self) -> dict[str, int | float | str]:
        return {argument.name: argument.default for argument in self.arguments}

    def usage(self, name: str) -> str:
        """How it is written with every default, such as crop(pad=4, fill=zeros)."""
        inside = ", ".join(f"{key}={value}" for key, value in self.defaults.items())
        return f"{name}({inside})" if inside else name


_FILL = Argument("fill", warp.FILLS, warp.FILLS[0])

OPERATIONS: dict[str, Operation] = {
    "flip": Operation("bytes", flip, (Argument("probability", float, 0.5, 0, 1),)),
    "alternating_flip": Operation("indexed", alternating_flip),
    "crop": Operation(
        "bytes",
        crop,
        (Argument("pad", int, 4, 0, 31), Argument("fill", ("zeros", "reflect"), "zeros")),
    ),
    "rotate": Operation("affine", warp.rotate, (Argument("degrees", float, 40.0, 0, 180), _FILL)),
    "shift": Operation("affine", warp.shift, (Argument("fraction", float, 0.2, 0, 0.99), _FILL)),
    "shear": Operation("affine", warp.shear, (Argument("degrees", float, 0.2, 0, 89), _FILL)),
    "zoom": Operation("affine", warp.zoom, (Argument("range", float, 0.2, 0, 0.99), _FILL)),
    "noise": Operation("image", noise, (Argument("sigma", float, 0.05),)),
    "cutout": Operation(
        "image", cutout, (Argument("size", int, 8, 1, 32), Argument("fill", float, 0.5, 0, 1))
    ),
    "mixup": Operation("pair", mixup, (Argument("alpha", float, 0.2, 0.01),)),
    "cutmix": Operation("pair", cutmix, (Argument("alpha", float, 1.0, 0.01),)),
}

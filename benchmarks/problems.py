"""What both sides are given: arrays made by numpy alone, so that neither needs the other's library.

The classes are torch_models.py's and ours; B, T, K are sentences, steps and tags.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

WORDS, EMBEDDING = 1024, 100  # of the made-up sentences: V and D
TAGS = 3
PATHS = 5  # of n-best
# Of both sides' optimisers.
RATE, MOMENTUM = 0.05, 0.9  # of Nesterov SGD, for classifiers
ADAM_RATE, CLIP = 1e-3, 5.0  # for taggers


class Problem(NamedTuple):
    """CRF parameters and a batch of emissions.

    Attributes:
        params: transitions float32 [K, K], start [K] and end [K].
        emissions: float32 [B, T, K].
        tags: int32 [B, T].
        lengths: int32 [B].
    """

    params: tuple[np.ndarray, np.ndarray, np.ndarray]
    emissions: np.ndarray
    tags: np.ndarray
    lengths: np.ndarray


def make_problem(B: int, T: int, K: int) -> Problem:
    """Normal scores; lengths from T / 2 to T, the longest first."""
    rng = np.random.default_rng(0)
    transitions, start, end = (rng.normal(size=s).astype(np.float32) for s in ((K, K), K, K))
    emissions = rng.normal(size=(B, T, K)).astype(np.float32)
    lengths = np.sort(rng.integers(T // 2, T + 1, B))[::-1].astype(np.int32)
    lengths[0] = T
    tags = rng.integers(0, K, (B, T)).astype(np.int32)
    return Problem((transitions, start, end), emissions, tags, lengths)


def path_score(problem: Problem, sentence: int, tags: Any) -> float:
    """The score of tags [length] of one sentence, in float64."""
    transitions, start, end = (part.astype(np.float64) for part in problem.params)
    path = np.asarray(tags, int)
    steps = problem.emissions[sentence, np.arange(len(path)), path].astype(np.float64)
    return steps.sum() + transitions[path[:-1], path[1:]].sum() + start[path[0]] + end[path[-1]]


class Sentences(NamedTuple):
    """Made-up sentences of words that all have a vector.

    Attributes:
        tokens: int32 [B, T], 1 to V - 1.
        tags: int32 [B, T].
        lengths: int32 [B], all T.
        vectors: float32 [V, D].
    """

    tokens: np.ndarray
    tags: np.ndarray
    lengths: np.ndarray
    vectors: np.ndarray


def make_sentences(B: int, T: int) -> Sentences:
    """Sentences of T words each."""
    rng = np.random.default_rng(0)
    tokens, tags = (rng.integers(low, high, (B, T)) for low, high in ((1, WORDS), (0, TAGS)))
    vectors = rng.normal(size=(WORDS, EMBEDDING)).astype(np.float32)
    lengths = np.full(B, T, np.int32)
    return Sentences(tokens.astype(np.int32), tags.astype(np.int32), lengths, vectors)


def make_images(B: int) -> tuple[np.ndarray, np.ndarray]:
    """Normalised images float32 [B, 32, 32, 3] and labels int64 [B] of 10 classes."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(B, 32, 32, 3)).astype(np.float32), rng.integers(0, 10, B)


class Convolution(NamedTuple):
    """A convolution of ResNet-18 with the CIFAR stem, padded by half its kernel.

    Attributes:
        height: of the square map that it reads.
        channels, filters: C and K.
        size, stride: of the kernel.
        times: how many a network has.
    """

    height: int
    channels: int
    filters: int
    size: int
    stride: int
    times: int

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of its `PASSES`."""
        return tuple(f"{self.name}, {part}" for part in PASSES)

    @property
    def name(self) -> str:
        """Such as "3x3, 64 to 128 on 32x32, stride 2"."""
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        size, height = (f"{n}x{n}" for n in (self.size, self.height))
        return f"{size}, {self.channels} to {self.filters} on {height}{stride}"

    def shapes(self, batch_size: int) -> tuple[tuple[int, ...], ...]:
        """Of the kernel [h, w, C, K], of x [B, H, W, C] and of what is made of it."""
        after = self.height // self.stride
        return (
            (self.size, self.size, self.channels, self.filters),
            (batch_size, self.height, self.height, self.channels),
            (batch_size, after, after, self.filters),
        )

    def flops(self, batch_size: int) -> int:
        """Multiplications and additions of the plain convolution, and of either gradient."""
        kernel, _, (_, height, width, _) = self.shapes(batch_size)
        return 2 * batch_size * height * width * int(np.prod(kernel))


CONVOLUTIONS = (
    Convolution(32, 3, 64, 3, 1, 1),
    Convolution(32, 64, 64, 3, 1, 4),
    Convolution(32, 64, 128, 3, 2, 1),
    Convolution(32, 64, 128, 1, 2, 1),
    Convolution(16, 128, 128, 3, 1, 3),
    Convolution(16, 128, 256, 3, 2, 1),
    Convolution(16, 128, 256, 1, 2, 1),
    Convolution(8, 256, 256, 3, 1, 3),
    Convolution(8, 256, 512, 3, 2, 1),
    Convolution(8, 256, 512, 1, 2, 1),
    Convolution(4, 512, 512, 3, 1, 3),
)
# By (height, channels) of its maps: how many normalisations ResNet-18 has with ReLU, how many
# without, and how many additions, which all have one.
MAPS = {(32, 64): (3, 2, 2), (16, 128): (2, 3, 2), (8, 256): (2, 3, 2), (4, 512): (2, 3, 2)}
PASSES = ("forward", "input's gradient", "kernel's gradient")
ELEMENTWISE = ("norm and ReLU", "norm", "addition and ReLU")
PRODUCT = 2048  # rows and columns of the matrices whose product tells what a processor can do


def make_arrays(shapes: Sequence[tuple[int, ...]]) -> Iterator[np.ndarray]:
    """Normal float32 numbers of each shape."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape).astype(np.float32) for shape in shapes)


def on_map(height: int, channels: int) -> tuple[str, ...]:
    """The names of the `ELEMENTWISE` operations on a map."""
    return tuple(f"{name}, {channels} channels on {height}x{height}" for name in ELEMENTWISE)


def make_maps(batch_size: int, height: int, channels: int) -> Iterator[np.ndarray]:
    """A map [B, H, W, C], another that is added to it, and the gradient of what is made of them."""
    return make_arrays(((batch_size, height, height, channels),) * 3)


def make_factors() -> Iterator[np.ndarray]:
    """Of the matrix product."""
    return make_arrays(((PRODUCT, PRODUCT),) * 2)

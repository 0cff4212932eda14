"""What both sides are given: arrays made by numpy alone, so that neither needs the other's library.

The classes are torch_models.py's and ours; B, T, K are sentences, steps and tags.
"""

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

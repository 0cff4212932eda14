"""Slow oracles: definitions spelled out in float64, for one example at a time."""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np


class Crf(NamedTuple):
    """A linear-chain CRF and one sentence: transitions [K, K], start [K], end [K], e [T, K].

    What is not allowed scores minus infinity. Except for `crf_forward` and
    `crf_forward_entropy`, every tag sequence is written out.
    """

    transitions: np.ndarray
    start: np.ndarray
    end: np.ndarray
    emissions: np.ndarray


def log_sum(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """log(sum(exp(values))), minus infinity for nothing or for minus infinities."""
    values = np.asarray(values, np.float64)
    if not values.size:
        return np.array(-np.inf)
    top = np.maximum(values.max(axis=axis, keepdims=True), -1e300)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(values - top).sum(axis=axis)) + np.squeeze(top, axis)


def crf_score(crf: Crf, tags: tuple[int, ...]) -> float:
    """The score of one tag sequence."""
    if not tags:
        return 0.0
    total = crf.start[tags[0]] + crf.end[tags[-1]]
    for tag, emission in zip(tags, crf.emissions, strict=True):
        total += emission[tag]
    for before, after in zip(tags[:-1], tags[1:], strict=True):
        total += crf.transitions[before, after]
    return float(total)


def crf_paths(crf: Crf) -> list[tuple[float, tuple[int, ...]]]:
    """Every (score, tags), best first, without those that are not allowed."""
    T, K = crf.emissions.shape
    scored = [(crf_score(crf, tags), tags) for tags in product(range(K), repeat=T)]
    return sorted((pair for pair in scored if pair[0] > -np.inf), reverse=True)


def crf_log_partition(crf: Crf, possible: np.ndarray | None = None) -> float:
    """The log-partition, of the paths inside `possible`, bool [T, K], if it is given."""
    kept = [
        score
        for score, tags in crf_paths(crf)
        if possible is None or all(possible[t, tag] for t, tag in enumerate(tags))
    ]
    return float(log_sum(np.array(kept)))


def crf_probabilities(crf: Crf) -> dict[tuple[int, ...], float]:
    """The probability of every path."""
    paths = crf_paths(crf)
    whole = log_sum(np.array([score for score, _ in paths]))
    return {tags: float(np.exp(score - whole)) for score, tags in paths}


def crf_marginals(crf: Crf) -> np.ndarray:
    """The probability [T, K] of each tag at each step, 0 if there is no path."""
    found = np.zeros_like(crf.emissions, dtype=np.float64)
    for tags, probability in crf_probabilities(crf).items():
        found[np.arange(len(tags)), list(tags)] += probability
    return found


def crf_pair_marginals(crf: Crf) -> np.ndarray:
    """The probability [T - 1, K, K] of each pair of tags at each step and the next."""
    T, K = crf.emissions.shape
    found = np.zeros((max(T - 1, 0), K, K))
    for tags, probability in crf_probabilities(crf).items():
        found[np.arange(T - 1), list(tags[:-1]), list(tags[1:])] += probability
    return found


def crf_entropy(crf: Crf) -> float:
    """The entropy of the paths in nats, 0 if there is none."""
    chances = np.array(list(crf_probabilities(crf).values()))
    chances = chances[chances > 0]
    return float(-(chances * np.log(chances)).sum())


def crf_forward_entropy(crf: Crf) -> float:
    """The entropy for sentences too long to enumerate: each tag's entropy given the next, summed.

    Hernando, Crespi and Cybenko 2005; the paths into each tag have an entropy of their own.
    """
    alpha, inside = crf.start + crf.emissions[0], np.zeros(len(crf.start))

    def mix(moves: np.ndarray, inside: np.ndarray) -> np.ndarray:
        logs = np.maximum(moves - log_sum(moves, axis=0), -1e300)
        return (np.exp(logs) * (inside - logs)).sum(axis=0)

    for emission in crf.emissions[1:]:
        moves = alpha[:, None] + crf.transitions
        alpha, inside = log_sum(moves, axis=0) + emission, mix(moves, inside[:, None])
    return float(mix(alpha + crf.end, inside))


def crf_forward(crf: Crf, reduce: Callable[..., np.ndarray] = log_sum) -> float:
    """The log-partition by the forward algorithm, for sentences too long to enumerate.

    With `np.max` for `reduce`, the score of the best path.
    """
    if not len(crf.emissions):
        return 0.0
    alpha = crf.start + crf.emissions[0]
    for emission in crf.emissions[1:]:
        alpha = reduce(alpha[:, None] + crf.transitions, axis=0) + emission
    return float(reduce(alpha + crf.end))

"""The recursion of `text.crf` over the steps of a sentence, one by one or all at once.

Both ways take the reduction as an argument, a function `reduce(candidates [M, ...]) ->
[R, ...]` over the ways to come to the same place: `log_sum` makes it the forward algorithm
(R = 1), `partial(best, n=n)` the (list) Viterbi algorithm (R = n).

Time runs outside and the batch is the last axis: on a CPU three to five times as fast forward
as having the few tags there. Scores are kept relative to the best of their step, and the sum
of what was taken off is returned apart, so that 5,000 steps of float32 keep their digits.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from text.crf_params import DISALLOWED, CRFParams

Reduce: TypeAlias = Callable[[Array], Array]


def log_sum(candidates: Array) -> Array:
    """log(sum(exp(candidates))) over the first axis, [M, ...] -> [1, ...]."""
    top = lax.stop_gradient(candidates.max(axis=0, keepdims=True))
    return jnp.log(jnp.exp(candidates - top).sum(axis=0, keepdims=True)) + top


def best(candidates: Array, n: int) -> Array:
    """The n largest over the first axis, largest first, [M, ...] -> [n, ...]."""
    if n == 1:
        return candidates.max(axis=0, keepdims=True)
    return jnp.moveaxis(lax.top_k(jnp.moveaxis(candidates, 0, -1), n)[0], -1, 0)


def best_indices(candidates: Array, n: int) -> Array:
    """Where the n largest are, int32 [M, ...] -> [n, ...]; of equals, the first comes first."""
    if n == 1:  # faster than argmax, which XLA does not vectorise on CPUs
        places = lax.broadcasted_iota(jnp.int32, candidates.shape, 0)
        largest = candidates == candidates.max(axis=0, keepdims=True)
        # The last place stands for all that are not the largest: it is found if none before is.
        return jnp.where(largest, places, len(candidates) - 1).min(axis=0, keepdims=True)
    return jnp.moveaxis(lax.top_k(jnp.moveaxis(candidates, 0, -1), n)[1], -1, 0)


def forward(
    reduce: Reduce, R: int, params: CRFParams, emissions: Array, lengths: Array
) -> tuple[Array, Array, Array]:
    """Reduced scores of the paths that end in each tag, step by step.

    Args:
        reduce: as above, to R results.
        R: 1 for `log_sum`.
        params: float32, finite.
        emissions: float32 [B, T, K], finite in the padding too.
        lengths: [B].

    Returns:
        float32 [R, K, B] at the last real step; [T, R, K, B] before each step; and what is to
        be added to the first, [B].
    """
    B, T, K = emissions.shape
    first = jnp.full((R, K, 1), DISALLOWED).at[0, :, 0].set(params.start)

    # Going back computes a step again from what came before it, since the [K, K, B] of every
    # step would otherwise be stored: three times as fast at 13 tags.
    @jax.checkpoint
    def step(before: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        t, emission = now  # emission: [K, B]
        moves = before[:, :, None] + params.transitions[None, :, :, None]  # [R, K, K, B]
        arrived = reduce(moves.reshape(R * K, K, B))  # [R, K, B]
        after = jnp.where(t == 0, first, arrived) + emission[None]
        top = lax.stop_gradient(after.max(axis=(0, 1)))
        real = t < lengths
        held = jnp.where(real[None, None], after - top[None, None], before)
        return held, (before, jnp.where(real, top, 0.0))

    steps = (jnp.arange(T), emissions.transpose(1, 2, 0))
    last, (history, tops) = lax.scan(step, jnp.zeros((R, K, B)), steps)
    return last, history, tops.sum(axis=0)


def best_paths(params: CRFParams, ends: Array, history: Array, lengths: Array) -> Array:
    """The tags of the paths that `forward` found best with `best`, from the last step back.

    Which way a path came is worked out again from `history`, for its own tag only, which is
    less work than noting the way into every tag at every step.

    Args:
        params: float32, finite.
        ends: [n, B], where each path ends: rank * K + tag.
        history: [T, n, K, B], before each step.
        lengths: [B].

    Returns:
        int32 [T, n, B], 0 in the padding.
    """
    T, n, K, B = history.shape

    def back(here: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        t, before = now  # before: [n, K, B]
        rank, tag = here // K, here % K  # [n, B]
        moves = before[:, :, None] + params.transitions[:, tag][None]  # [n, K, n, B]
        order = best_indices(moves.reshape(n * K, n, B), n)  # [n, n, B]
        previous = jnp.take_along_axis(order, rank[None], axis=0)[0]
        real = (t < lengths)[None]
        return jnp.where(real, previous, here), jnp.where(real, tag, 0)

    return lax.scan(back, ends, (jnp.arange(T), history), reverse=True)[1]


def forward_parallel(
    reduce: Reduce, params: CRFParams, emissions: Array, lengths: Array
) -> tuple[Array, Array]:
    """`forward` with R = 1, but without the history, in log T rounds instead of T.

    A step is a [K, K] matrix, moving along a path is the product of matrices in the semiring
    of (reduce, +), and products may be taken in any grouping: an associative scan (Särkkä and
    García-Fernández 2021, "Temporal parallelization of Bayesian smoothers", arXiv 1905.13002).

    Args:
        reduce: as above, to 1 result.
        params: float32, finite.
        emissions: float32 [B, T, K], T at least 1.
        lengths: [B].
    """
    B, T, K = emissions.shape
    is_first = jnp.arange(T)[:, None, None, None] == 0
    arrivals = jnp.where(is_first, params.start[None, None, None], params.transitions[None, None])
    matrices = arrivals + emissions.transpose(1, 0, 2)[:, :, None]  # [T, B, K, K]
    identity = jnp.where(jnp.eye(K, dtype=bool), 0.0, DISALLOWED)[None, None]
    real = jnp.arange(T)[:, None] < lengths[None]
    matrices = jnp.where(real[..., None, None], matrices, identity)

    def compose(earlier: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
        left, left_top = earlier
        right, right_top = later
        left = jnp.moveaxis(left, -1, 0)[..., :, None]  # [K, T, B, K, 1]
        right = jnp.moveaxis(right, -2, 0)[..., None, :]  # [K, T, B, 1, K]
        product = reduce(left + right)[0]  # [T, B, K, K]
        top = lax.stop_gradient(product.max(axis=(-2, -1), keepdims=True))
        return product - top, left_top + right_top + top

    products, tops = lax.associative_scan(compose, (matrices, jnp.zeros((T, B, 1, 1))))
    # The first matrix is the same in every row, as a path has no tag before its first.
    return products[-1, :, 0].T[None], tops[-1, :, 0, 0]

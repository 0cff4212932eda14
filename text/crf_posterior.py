"""What `text.crf` says of all paths together: their entropy, pairs of tags, and draws.

Read from its end, a path is a Markov chain, too: whatever comes after step t + 1,

    p(y_t = i | y_t+1 = j)  is the softmax over i of  scores[t, i] + transitions[i, j]

with the scores of the forward algorithm. All here but the parallel way follows that chain back. As
in `text.crf_recursion` time runs outside and the batch is the last axis.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from text.crf_params import (
    Allowed,
    CRFParams,
    centred,
    expect_count,
    finite_or_disallowed,
    prepare,
    prepare_params,
    reachable_or_infinite,
)
from text.crf_recursion import forward, goes_parallel, log_sum, log_total


def entropy(
    params: CRFParams,
    emissions: Array,
    lengths: Array,
    *,
    allowed: Allowed | None = None,
    method: str = "auto",
) -> Array:
    """How uncertain the tags of a sentence are: the entropy of its paths, in nats.

    Step by step it is the sum of what each tag leaves open about the one before (Hernando, Crespi
    and Cybenko 2005, "Efficient computation of the hidden Markov model entropy for a given
    observation sequence"), which subtracts nothing and so keeps its digits. In parallel it is
    the log-partition less the mean score, its slope along the scores, with the digits of a `loss`.

    Arguments as for `log_partition` of `text.crf`.

    Returns:
        float32 [B], at least 0; 0 where no path is allowed.
    """
    params, emissions = prepare(params, emissions, lengths, allowed)
    emissions = centred(emissions)
    if goes_parallel(method, emissions):
        return _entropy_parallel(params, emissions, lengths)
    return _pairs_and_entropy(params, emissions, lengths, keep=False)[1]


def pair_marginals(
    params: CRFParams, emissions: Array, lengths: Array, *, allowed: Allowed | None = None
) -> Array:
    """The probability of each pair of tags at each step and the next (Rabiner 1989).

    Args:
        params: of K tags.
        emissions: [B, T, K].
        lengths: [B].
        allowed: among these paths only.

    Returns:
        float32 [B, T - 1, K, K], or [B, 0, K, K] without steps: at [b, t, i, j] of tag i at step t
        and j at step t + 1. A table sums to 1 where both steps are real, and is 0 elsewhere, and
        throughout a sentence that has no allowed path.
    """
    params, emissions = prepare(params, emissions, lengths, allowed)
    pairs, _ = _pairs_and_entropy(params, centred(emissions), lengths, keep=True)
    return pairs.transpose(3, 0, 1, 2)


def sample(
    params: CRFParams,
    emissions: Array,
    lengths: Array,
    key: Array,
    n: int = 1,
    *,
    allowed: Allowed | None = None,
) -> Array:
    """Tags drawn by their probability: forward filtering, backward sampling.

    Chib 1996, "Calculating posterior distributions and modal estimates in Markov mixture models".
    A step's probabilities are met to about 1e-7, the grid of float32's random numbers, of which a
    tag much less likely than that is drawn less often than it should, and never more often.

    Args:
        params: of K tags.
        emissions: [B, T, K].
        lengths: [B].
        key: of `jax.random`. The random numbers of a step are made from it, the sentence's place
            in the batch and the step: neither T nor the other sentences change a draw, but for
            rounding. It is used up: draw more with another.
        n: how many draws of each sentence, independent of each other; static under jit.
        allowed: draw from these paths only.

    Returns:
        int32 [B, n, T], 0 in the padding. Where no path is allowed the tags are all 0; a tag
        that is not allowed is never drawn otherwise.
    """
    expect_count(n, "sample")
    _expect_key(key)
    params = prepare_params(params, emissions, lengths, allowed)
    params = CRFParams(*map(finite_or_disallowed, params))
    emissions = centred(finite_or_disallowed(emissions))
    _, possible, kept = _forward_scores(params, emissions, lengths)
    T, _, B = kept.shape
    lengths = jnp.where(possible, jnp.minimum(lengths.astype(jnp.int32), T), 0)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(B))

    def back(after: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        t, scores = now  # scores: [K, B], after: [n, B]
        moves = params.transitions[:, after]  # [K, n, B]
        leaving = jnp.where((t + 1 == lengths)[None, None], params.end[:, None, None], moves)
        tags = _draw(scores[:, None] + leaving, jax.vmap(jax.random.fold_in, (0, None))(keys, t))
        tags = jnp.where((t < lengths)[None], tags, 0)
        return tags, tags

    nothing = jnp.zeros((int(n), B), jnp.int32)
    tags = lax.scan(back, nothing, (jnp.arange(T), kept), reverse=True)[1]  # [T, n, B]
    return tags.transpose(2, 1, 0)


def _expect_key(key: Any) -> None:
    """ValueError unless `key` is one of `jax.random`, of either style."""
    dtype, ndim = getattr(key, "dtype", None), getattr(key, "ndim", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if (typed, ndim) != (True, 0) and (dtype, ndim) != (jnp.uint32, 1):
        given = type(key).__name__ if dtype is None else f"{dtype} {list(key.shape)}"
        raise ValueError(
            f"key: expected one key for the whole batch, as jax.random.key(0) makes it, got {given}"
        )


def _draw(scores: Array, keys: Array) -> Array:
    """Tags drawn by their scores, [K, n, B] -> int32 [n, B], by a key for each of B."""
    # One random number for each instead of K, as `jax.random.categorical` takes: 5 draws of 64
    # sentences of 80 steps and 9 tags take 2 instead of 10 ms (two cores of a Xeon with AMX).
    shape = scores.shape[1:2]
    uniform = jax.vmap(lambda key: jax.random.uniform(key, shape, jnp.float32), out_axes=1)(keys)
    return tag_at(1.0 - uniform, jax.nn.softmax(scores, axis=0))


def tag_at(place: Array, weights: Array) -> Array:
    """The tag at a place in (0, 1], [n, B], if each takes its weight, [K, n, B], of that line.

    It is none of weight 0, though sums of many weights are rounded so that they may differ before
    and after one.
    """
    upto = jnp.where(weights > 0, jnp.cumsum(weights, axis=0), 0.0)
    reached = upto >= (place * upto.max(axis=0))[None]
    return jnp.argmax(reached, axis=0).astype(jnp.int32)  # the first


def _forward_scores(
    params: CRFParams, emissions: Array, lengths: Array
) -> tuple[Array, Array, Array]:
    """The log of the summed paths by their last tag and their tag at every step, after `prepare`.

    Returns:
        float32 [K, B], relative to a number of its own; bool [B], whether there is a step and a
        path; and what `forward` keeps, [T, K, B].
    """
    last, offset, kept = forward(params, emissions, lengths, keep=True)
    totals = last + params.end[:, None]
    whole = reachable_or_infinite(log_sum(totals) + offset)
    return totals, (lengths > 0) & (whole != -jnp.inf), kept  # what is no number stays so


def _pairs_and_entropy(
    params: CRFParams, emissions: Array, lengths: Array, *, keep: bool
) -> tuple[Any, Array]:
    """The probabilities of pairs of tags, [T - 1, K, K, B] or if not kept None, and the entropy,
    [B]; both after `prepare`."""
    totals, possible, kept = _forward_scores(params, emissions, lengths)

    @jax.checkpoint  # as in `forward`
    def back(after: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Any, Array]]:
        t, scores = now  # scores: [K, B], after: [K, B], the probability of each tag at t + 1
        moves = scores[:, None] + params.transitions[:, :, None]  # [K, K, B]
        inside = t + 1 < lengths
        log_before = jax.nn.log_softmax(jnp.where(inside[None, None], moves, 0.0), axis=0)
        pairs = jnp.where(inside[None, None], jnp.exp(log_before) * after[None], 0.0)
        before = jnp.where(inside[None], pairs.sum(axis=1), after)
        return before, (pairs if keep else None, -(pairs * log_before).sum(axis=(0, 1)))

    log_ends = jax.nn.log_softmax(jnp.where(possible[None], totals, 0.0), axis=0)
    ends = jnp.where(possible[None], jnp.exp(log_ends), 0.0)
    steps = (jnp.arange(len(kept) - 1), kept[:-1])
    pairs, entropies = lax.scan(back, ends, steps, reverse=True)[1]
    return pairs, entropies.sum(axis=0) - (ends * log_ends).sum(axis=0)


def _entropy_parallel(params: CRFParams, emissions: Array, lengths: Array) -> Array:
    """`entropy` after `prepare`: the mean score is the log-partition's slope along the scores."""
    scores = (params, emissions)  # finite: what is disallowed has no weight in the mean
    total, mean = jax.jvp(lambda p, e: log_total(p, e, lengths, "parallel"), scores, scores)
    return jnp.where(total == -jnp.inf, 0.0, jnp.maximum(total - mean, 0.0))

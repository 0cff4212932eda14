"""The (list) Viterbi algorithm of `text.crf`, step by step.

As in `text.crf_recursion` time runs outside, the batch is the last axis, and scores are kept
relative to the best of their step.
"""

import functools

import jax.numpy as jnp
from jax import Array, lax

from text.crf_params import DISALLOWED, CRFParams, finite_or_disallowed

# Up to so many candidates, the best is found by comparing each with the next, written out, and up
# to so many best ones one after the other: XLA vectorises that on CPUs, but neither a reduction
# nor top_k. Decoding 64 sentences of 80 steps takes 23 instead of 26 us with 3 tags, 67 instead of
# 186 with 9; their 5 best paths, otherwise by top_k, 1.0 instead of 1.6 ms and 2.5 instead of 13.5.
FEW = 16


def ranked(candidates: Array, n: int) -> tuple[Array, Array]:
    """The n largest over the first axis, and where they are.

    Args:
        candidates: [M, ...]; finite, if n is more than 1.
        n: how many, up to M.

    Returns:
        Both [n, ...], the places int32: the largest first, of equals the first.
    """
    if n > FEW:
        values, places = lax.top_k(jnp.moveaxis(candidates, 0, -1), n)
        return jnp.moveaxis(values, -1, 0), jnp.moveaxis(places, -1, 0)
    all_places = lax.broadcasted_iota(jnp.int32, candidates.shape, 0)
    found = [largest(candidates)]
    while len(found) < n:
        candidates = jnp.where(all_places == found[-1][1][None], -jnp.inf, candidates)
        candidates = lax.optimization_barrier(candidates)
        found.append(largest(candidates))
    return jnp.stack([top for top, _ in found]), jnp.stack([place for _, place in found])


def largest(candidates: Array) -> tuple[Array, Array]:
    """The largest over the first axis, and where it is, int32; of equals the first."""
    if len(candidates) > FEW:
        top, final = candidates.max(axis=0), len(candidates) - 1
        places = lax.broadcasted_iota(jnp.int32, candidates.shape, 0)
        # The last place stands for all that are not the largest: it is found if none before is.
        return top, jnp.where(candidates == top[None], places, final).min(axis=0)
    top, place = candidates[0], jnp.zeros(candidates.shape[1:], jnp.int32)
    for number, candidate in enumerate(candidates[1:], 1):
        better = candidate > top
        top = jnp.where(better, candidate, top)
        place = jnp.where(better, number, place)
    return top, place


def forward_best(
    n: int, params: CRFParams, emissions: Array, lengths: Array
) -> tuple[Array, Array, Array]:
    """The n best paths that end in each tag, step by step: the (list) Viterbi algorithm.

    What a loop keeps of a step, XLA writes on CPUs number by number: with 3 tags decoding 64
    sentences of 80 steps takes 23 us if the ways are packed, 28 if not, 34 if scores are kept.

    Args:
        n: how many paths.
        params: float32, finite.
        emissions: [B, T, K], T at least 1; the padding may hold anything.
        lengths: [B].

    Returns:
        float32 [n, K, B] at the last real step, best first, and what is to be added to it, [B];
        and what is kept of each step after the first: from which of the n K before it (rank * K +
        tag) each of its n K came, int32 [T - 1, W, B], packed by `_pack`; or if `keeps_scores`,
        the scores before it, float32 [T - 1, K, B].
    """
    B, T, K = emissions.shape

    def scores_at(t: Array | int) -> Array:
        now = lax.dynamic_index_in_dim(emissions, t, axis=1, keepdims=False).T  # [K, B]
        return finite_or_disallowed(now)

    def step(state: tuple[Array, Array, Array], t: Array) -> tuple[tuple, Array]:
        before, offset, lost = state
        moves = before[:, :, None] + params.transitions[None, :, :, None]  # [n, K, K, B]
        arrived, ways = ranked(moves.reshape(n * K, K, B), n)  # [n, K, B]
        # Without the first barrier XLA makes `after` again for `top`. Without the second it may
        # write the difference over `after` while it still looks for `top` there (jaxlib 0.12.0).
        after = lax.optimization_barrier(arrived + scores_at(t)[None])
        top = lax.optimization_barrier(largest(after.reshape(n * K, B))[0])
        real = t < lengths
        held = jnp.where(real[None, None], after - top[None, None], before)
        kept = before[0] if keeps_scores(n, K) else _pack(ways.reshape(n * K, B))
        return (held, *_add_exactly(offset, lost, jnp.where(real, top, 0.0))), kept

    first = jnp.full((n, K, B), DISALLOWED, jnp.float32)
    first = first.at[0].set(params.start[:, None] + scores_at(0))
    nothing = jnp.zeros(B, jnp.float32)
    (last, offset, lost), kept = lax.scan(step, (first, nothing, nothing), jnp.arange(1, T))
    return last, offset + lost, kept


def _add_exactly(total: Array, lost: Array, more: Array) -> tuple[Array, Array]:
    """A sum of many numbers and what its roundings lost (Knuth's two-sum), both with `more`."""
    added = total + more
    taken = added - total
    return added, lost + ((total - (added - taken)) + (more - taken))


def keeps_scores(n: int, K: int) -> bool:
    """Whether `forward_best` keeps scores instead of ways.

    The way of one path into its own tag is then found when going back, which is less work than
    finding the ways into all of many tags.
    """
    return n == 1 and K > FEW


def best_paths(params: CRFParams, kept: Array, ends: Array, lengths: Array) -> Array:
    """The tags of the paths that `forward_best` found, from the last step back.

    Args:
        params: float32, finite.
        kept: of each step after the first, as there.
        ends: [n, B], where each path ends: rank * K + tag.
        lengths: [n, B], of each path.

    Returns:
        int32 [T, n, B], 0 in the padding.
    """
    n, T, K = len(ends), len(kept) + 1, len(params.start)

    def tags(here: Array, t: Array | int) -> Array:
        return jnp.where(t < lengths, lax.rem(here, jnp.full_like(here, K)), 0)

    def back(here: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        t, known = now
        if keeps_scores(n, K):
            previous = largest(known[:, None] + params.transitions[:, here])[1]
        else:
            previous = _unpack(known, n * K, here)
        return jnp.where(t < lengths, previous, here), tags(here, t)

    first, later = lax.scan(back, ends, (jnp.arange(1, T), kept), reverse=True)
    return jnp.concatenate([tags(first, 0)[None], later])


def _bits(M: int) -> int:
    """How many bits each of M numbers below M takes in one of 32; 0 if they do not fit."""
    bits = max(M - 1, 1).bit_length()
    return bits if bits * M <= 32 else 0


def _pack(numbers: Array) -> Array:
    """M numbers below M, int32 [M, B], in one, int32 [1, B], if they fit."""
    bits = _bits(len(numbers))
    if not bits:
        return numbers
    placed = [number << (bits * place) for place, number in enumerate(numbers)]
    return functools.reduce(jnp.bitwise_or, placed)[None]


def _unpack(packed: Array, M: int, place: Array) -> Array:
    """The numbers in some places, int32 [n, B], of M that `_pack` was given."""
    if bits := _bits(M):
        return (packed >> (bits * place)) & (2**bits - 1)
    return jnp.take_along_axis(packed, place, axis=0)

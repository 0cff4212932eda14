"""The forward algorithm of `text.crf`, step by step, and its parallel way, which decodes, too.

In parallel, the reduction of the ways to come to the same place is an argument, a function
`reduce(candidates [M, ...]) -> [...]`: `log_sum` makes it the forward algorithm, `best` Viterbi's.

Time runs outside and the batch is the last axis: on a CPU three to five times as fast forward
as having the few tags there. Scores are kept relative to the best of their step, or in parallel
of their stretch, and the sum of what was taken off is returned apart, so that 5,000 steps of
float32 keep their digits. A stretch's best may be one that no path can reach, as it cannot know
what comes before it: a tag that is not allowed, but scored 1e4 above the others at each of 5,000
steps, costs the parallel way a nat, at each of 80 steps 0.03, and scored 10 above them nothing.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from common.parallel import default_is_cpu
from text.crf_params import DISALLOWED, CRFParams, reachable_or_infinite
from text.crf_viterbi import largest

Reduce: TypeAlias = Callable[[Array], Array]

# Where "auto" goes through time in parallel, on accelerators only: fewer dependent steps, but K
# times the arithmetic, and a program that takes longer to compile. On an H100 that other
# measurements shared, 64 sentences, milliseconds one by one and in parallel, loss and gradient /
# decoding (one by one as commit 1939136 did): 16 steps of 3 tags 0.54 and 0.21 / 0.67 and 0.24, 80
# steps 1.4 and 0.14 / 2.2 and 0.08, 256 steps 4.4 and 0.19 / 6.9 and 0.05; 80 steps of 16 tags 3.0
# and 0.49 / 1.2 and 0.14. Compiling took 1 to 1.5 s and 2 to 3, with 16 tags 2 to 3 and 6 to 9. On
# two CPU cores loss and gradient take, with 3 tags, half the time for 4 sentences of 16 to 40
# steps, three quarters for those of 128, half as much again for 16 of 1,024, twice for 64 of 80,
# with 9 tags four times; decoding takes more.
PARALLEL_MIN_LENGTH = 16
PARALLEL_MAX_TAGS = 16
PARALLEL_MAX_WAYS = 2**26  # numbers of the first round, [K, K, K, T / 2, B]: at most 256 MiB
METHODS = ("auto", "scan", "parallel")


def goes_parallel(method: str, emissions: Array) -> bool:
    """Whether to go through time in parallel; ValueError for an unknown method."""
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    B, T, K = emissions.shape
    if method != "auto":
        return method == "parallel" and T > 0
    fits = K <= PARALLEL_MAX_TAGS and B * (T // 2) * K**3 <= PARALLEL_MAX_WAYS
    return T >= PARALLEL_MIN_LENGTH and fits and not default_is_cpu()


def log_sum(candidates: Array) -> Array:
    """log(sum(exp(candidates))) over the first axis, [M, ...] -> [...]."""
    top = lax.stop_gradient(candidates.max(axis=0))
    return jnp.log(jnp.exp(candidates - top[None]).sum(axis=0)) + top


def best(candidates: Array) -> Array:
    """The largest over the first axis, [M, ...] -> [...]."""
    return largest(candidates)[0]


def log_total(params: CRFParams, emissions: Array, lengths: Array, method: str) -> Array:
    """`log_partition` of `text.crf`, after `prepare`."""
    if goes_parallel(method, emissions):
        last, offset, _ = forward_parallel(log_sum, params, emissions, lengths)
    else:
        last, offset, _ = forward(params, emissions, lengths)
    totals = log_sum(last + params.end[:, None]) + offset
    return jnp.where(lengths > 0, reachable_or_infinite(totals), 0.0)


def forward(
    params: CRFParams, emissions: Array, lengths: Array, keep: bool = False
) -> tuple[Array, Array, Any]:
    """The forward algorithm: the log of the summed paths that end in each tag, step by step.

    Args:
        params: float32, finite.
        emissions: float32 [B, T, K], finite in the padding too.
        lengths: [B].
        keep: whether to keep the scores of every step.

    Returns:
        float32 [K, B] at the last real step, and what is to be added to it, [B]; and if kept the
        former at every step, [T, K, B], each relative to a number of its own, else None.
    """
    B, T, K = emissions.shape

    # Going back computes a step again from what came before it, since the [K, K, B] of every
    # step would otherwise be stored: three times as fast at 13 tags.
    @jax.checkpoint
    def step(before: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Array, Any]]:
        t, emission = now  # emission: [K, B]
        moves = before[:, None] + params.transitions[:, :, None]  # [K, K, B]
        # Without the barrier XLA makes the exponentials again and again for a gradient of the
        # emissions alone: marginals of 64 sentences of 80 steps take 8.0 instead of 2.0 ms with 16
        # tags, 2.7 instead of 0.9 with 9.
        arrived = log_sum(lax.optimization_barrier(moves))
        after = jnp.where(t == 0, params.start[:, None], arrived) + emission
        top = lax.stop_gradient(after.max(axis=0))
        real = t < lengths
        held = jnp.where(real[None], after - top[None], before)
        return held, (jnp.where(real, top, 0.0), held if keep else None)

    steps = (jnp.arange(T), emissions.transpose(1, 2, 0))
    last, (tops, kept) = lax.scan(step, jnp.zeros((K, B), jnp.float32), steps)
    return last, tops.sum(axis=0), kept


def forward_parallel(
    reduce: Reduce, params: CRFParams, emissions: Array, lengths: Array
) -> tuple[Array, Array, list[Array]]:
    """`forward` in log T rounds instead of T: products of ever longer stretches.

    A step is a [K, K] matrix, moving along a path is the product of matrices in the semiring
    of (reduce, +), and products may be taken in any grouping: what an associative scan rests on
    (Särkkä and García-Fernández 2021, "Temporal parallelization of Bayesian smoothers", arXiv
    1905.13002). Here neighbours are multiplied until one product is left, which is half of the
    work of `lax.associative_scan`: that would also give the product up to every step.

    Args:
        reduce: as above.
        params: float32, finite.
        emissions: float32 [B, T, K], T at least 1.
        lengths: [B].

    Returns:
        float32 [K, B], and what is to be added to it, [B], as `forward`; and what was
        multiplied in each round, [K, K, n, B], n even: the best scores of n stretches after each
        other, from the tag before a stretch to its last, each relative to a number of its own.
    """
    _, T, K = emissions.shape
    t = jnp.arange(T)[None, None, :, None]
    arrivals = jnp.where(
        t == 0, params.start[None, :, None, None], params.transitions[:, :, None, None]
    )
    steps = arrivals + emissions.transpose(2, 1, 0)[None]  # [K, K, T, B]
    identity = jnp.where(jnp.eye(K, dtype=bool), 0.0, DISALLOWED)[:, :, None, None]
    stretches = jnp.where(t < lengths[None, None, None], steps, identity)
    rounds: list[Array] = []
    offset = jnp.zeros(lengths.shape, jnp.float32)
    while stretches.shape[2] > 1:
        if stretches.shape[2] % 2:
            one_more = jnp.broadcast_to(identity, stretches[:, :, :1].shape)
            stretches = jnp.concatenate([stretches, one_more], axis=2)
        stretches = lax.optimization_barrier(stretches)  # or both halves would compute it
        rounds.append(stretches)
        earlier, later = stretches[:, :, 0::2], stretches[:, :, 1::2]
        ways = earlier.swapaxes(0, 1)[:, :, None] + later[:, None]  # [K, K, K, n, B]
        product = reduce(ways)
        top = lax.stop_gradient(product.max(axis=(0, 1)))
        stretches, offset = product - top[None, None], offset + top.sum(axis=0)
    # The first step is the same from every tag, as a path has no tag before its first.
    return stretches[0, :, 0], offset, rounds


def best_path_parallel(rounds: list[Array], T: int, ends: Array, lengths: Array) -> Array:
    """The tags of the path that `forward_parallel` found best with `best`, in log T rounds.

    Of a stretch whose tags before it and at its end are known, the tag in the middle is that by
    which its two halves together are best.

    Args:
        rounds: what `forward_parallel` multiplied, for T steps.
        ends: [1, B], where each path ends.
        lengths: [1, B].

    Returns:
        int32 [T, 1, B], 0 in the padding.
    """
    tags = ends
    for stretches in reversed(rounds):
        earlier, later = stretches[:, :, 0::2], stretches[:, :, 1::2]
        last = tags[: earlier.shape[2]]  # [n, B]
        before = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]])
        ways = _rows(earlier, before) + _rows(later.swapaxes(0, 1), last)  # [K, n, B]
        middle = largest(ways)[1]
        tags = jnp.stack([middle, last], axis=1).reshape(2 * len(last), tags.shape[1])
    real = jnp.arange(T)[:, None] < lengths
    return jnp.where(real, tags[:T], 0)[:, None]


def _rows(table: Array, index: Array) -> Array:
    """table[index[n, b], :, n, b] of a table [K, K, n, B]: [K, n, B]."""
    found = table[-1]
    # No gather, which takes one number at a time on CPUs.
    for tag in range(len(table) - 1):
        found = jnp.where(index[None] == tag, table[tag], found)
    return found

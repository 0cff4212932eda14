"""The linear-chain conditional random field (Lafferty, McCallum and Pereira 2001).

The score of tags y for emissions e, over the n real steps of a sentence:

    start[y_1] + sum_t e[t, y_t] + sum_t transitions[y_t, y_t+1] + end[y_n]

and the probability of y is exp(score - log_partition). Every function takes a batch:

    emissions  floating  [B, T, K]  what follows a sentence's length may be anything, NaN too
    tags       integer   [B, T]     likewise
    lengths    integer   [B]        real steps, 0 to T; a sentence of length 0 contributes 0

and computes in float32 whatever the emissions are; a path that scores less than -5e29 counts as
impossible. Shapes are checked when tracing. A length outside [0, T], or at a real step a tag
outside [0, K), makes the score and the loss of its sentence not a number, and the gradients of its
steps; elsewhere that lengths lie in [0, T] is the caller's promise. Scores of minus infinity are
legal everywhere and leave the gradients finite; what is not a number at a real step makes the loss,
the probabilities and the entropy of its sentence not a number either. Decoding takes for minus
infinity what is not a number, and plus infinity; so do draws.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from text.crf_params import (
    DISALLOWED,
    Allowed,
    CRFParams,
    centred,
    expect,
    expect_count,
    finite_or_disallowed,
    prepare,
    prepare_params,
    reachable_or_infinite,
)
from text.crf_posterior import entropy, pair_marginals, sample
from text.crf_recursion import (
    best,
    best_path_parallel,
    forward_parallel,
    goes_parallel,
    log_total,
)
from text.crf_viterbi import best_paths, forward_best, ranked

__all__ = [
    "Allowed",
    "CRFParams",
    "decode",
    "decode_nbest",
    "entropy",
    "log_partition",
    "log_probability_of",
    "loss",
    "marginals",
    "pair_marginals",
    "path_log_probability",
    "sample",
    "score",
]


def score(params: CRFParams, emissions: Array, tags: Array, lengths: Array) -> Array:
    """The score of given tags.

    Args:
        params: of K tags.
        emissions: [B, T, K].
        tags: [B, T].
        lengths: [B].

    Returns:
        float32 [B]; not a number where a tag or the length is out of range.

    Raises:
        ValueError: shapes or dtypes do not fit each other; so in every function here.
    """
    return _score(*prepare(params, emissions, lengths), tags, lengths)


def log_partition(
    params: CRFParams,
    emissions: Array,
    lengths: Array,
    *,
    allowed: Allowed | None = None,
    method: str = "auto",
) -> Array:
    """The logarithm of the summed exp(score) of all tag sequences: the forward algorithm.

    Rabiner, "A tutorial on hidden Markov models", 1989.

    Args:
        params: of K tags.
        emissions: [B, T, K].
        lengths: [B].
        allowed: sum over these paths only.
        method: "scan" goes through time step by step, "parallel" in log T rounds
            (`forward_parallel`), "auto" chooses by the device and the shape (`goes_parallel`).
            In parallel, what no path can reach costs digits where its scores are far above what
            paths can: they are kept relative to the best of all.

    Returns:
        float32 [B]; minus infinity where no path is allowed.
    """
    return log_total(*prepare(params, emissions, lengths, allowed), lengths, method)


def loss(
    params: CRFParams, emissions: Array, tags: Array, lengths: Array, *, method: str = "auto"
) -> Array:
    """The negative log-likelihood of given tags, in nats per sentence.

    Arguments as for `score` and `log_partition`.

    Returns:
        float32 [B], at least 0; infinity where the path is impossible, not a number where a tag
        or the length is out of range.
    """
    params, emissions = prepare(params, emissions, lengths)
    return _tags_surprisal(params, emissions, tags, lengths, method)


def path_log_probability(
    params: CRFParams,
    emissions: Array,
    tags: Array,
    lengths: Array,
    *,
    allowed: Allowed | None = None,
    method: str = "auto",
) -> Array:
    """The log-probability of given tags, among the allowed paths if `allowed` says which.

    Arguments as for `score` and `log_partition`.

    Returns:
        float32 [B], at most 0; minus infinity where the path is not allowed, not a number where a
        tag or the length is out of range.
    """
    params, emissions = prepare(params, emissions, lengths, allowed)
    return -_tags_surprisal(params, emissions, tags, lengths, method)


def log_probability_of(
    params: CRFParams,
    emissions: Array,
    lengths: Array,
    possible: Array,
    *,
    allowed: Allowed | None = None,
    method: str = "auto",
) -> Array:
    """The log of the total probability of the paths that keep to `possible`.

    The probability of a span, say, is that of all paths with its tags in its place.

    Args:
        params: of K tags.
        emissions: [B, T, K].
        lengths: [B].
        possible: bool [B, T, K], the tags that a path may have at each step.
        allowed: count only these paths, above and below the fraction.
        method: as for `log_partition`.

    Returns:
        float32 [B], at most 0; minus infinity where there is no such path.
    """
    params, emissions = prepare(params, emissions, lengths, allowed)
    expect("possible", possible, emissions.shape, jnp.bool_)
    emissions = centred(emissions)
    part = jnp.where(possible, emissions, DISALLOWED)
    totals = [log_total(params, e, lengths, method) for e in (part, emissions)]
    return -_surprisal(*totals)


def marginals(
    params: CRFParams,
    emissions: Array,
    lengths: Array,
    *,
    allowed: Allowed | None = None,
    method: str = "auto",
) -> Array:
    """The probability of each tag at each step.

    It is the gradient of the log-partition by the emissions: reverse mode through the forward
    algorithm is the forward-backward algorithm (Eisner 2016, "Inside-outside and
    forward-backward algorithms are just backprop").

    Arguments as for `log_partition`.

    Returns:
        float32 [B, T, K]; a row sums to 1 at a real step and is 0 in the padding, and
        throughout a sentence that has no allowed path.
    """
    params, emissions = prepare(params, emissions, lengths, allowed)
    return jax.grad(lambda e: log_total(params, e, lengths, method).sum())(emissions)


def decode(
    params: CRFParams,
    emissions: Array,
    lengths: Array,
    *,
    allowed: Allowed | None = None,
    method: str = "auto",
) -> tuple[Array, Array]:
    """The best tags and their score: the Viterbi algorithm (Rabiner 1989).

    Args:
        params: of K tags.
        emissions: [B, T, K].
        lengths: [B].
        allowed: choose among these paths only.
        method: as for `log_partition`. Of paths as good but for rounding, one may choose another
            than the other, and than `decode_nbest`, which goes step by step.

    Returns:
        tags int32 [B, T], 0 in the padding, and score float32 [B]. Where no path is allowed
        the tags are all 0 and the score is minus infinity.
    """
    params = prepare_params(params, emissions, lengths, allowed)
    tags, scores = _decode(params, emissions, lengths, 1, method)
    return tags[:, 0], scores[:, 0]


def decode_nbest(
    params: CRFParams, emissions: Array, lengths: Array, n: int, *, allowed: Allowed | None = None
) -> tuple[Array, Array]:
    """The n best tag sequences, exactly: the list Viterbi algorithm.

    It keeps the n best paths into every tag (Seshadri and Sundberg 1994).

    Args:
        params: of K tags.
        emissions: [B, T, K].
        lengths: [B].
        n: how many, at least 1; static under jit.
        allowed: choose among these paths only.

    Returns:
        tags int32 [B, n, T], 0 in the padding, all different, best first, and score float32
        [B, n]. Where there are fewer than n paths the rest have tags 0 and score minus
        infinity; a sentence of length 0 has one path.
    """
    expect_count(n, "decode_nbest")
    params = prepare_params(params, emissions, lengths, allowed)
    return _decode(params, emissions, lengths, int(n), "scan")


def _score(params: CRFParams, emissions: Array, tags: Array, lengths: Array) -> Array:
    """`score` after `prepare`."""
    B, T, K = emissions.shape
    expect("tags", tags, (B, T), jnp.integer)
    tags, lengths = tags.astype(jnp.int32), lengths.astype(jnp.int32)  # K and T fit into these

    def score_one(emissions: Array, tags: Array, length: Array) -> Array:
        t = jnp.arange(T)
        tags = jnp.where(t < length, tags, 0)
        in_range = (0 <= length) & (length <= T) & ((0 <= tags) & (tags < K)).all()
        steps = jnp.take_along_axis(emissions, tags[:, None], axis=1)[:, 0]
        moves = params.transitions[tags[:-1], tags[1:]]
        arrivals = jnp.concatenate([params.start[tags[:1]], moves])  # T of them, 0 too
        leaving = jnp.where(t == length - 1, params.end[tags], 0.0)
        total = jnp.where(t < length, steps + arrivals + leaving, 0.0).sum()
        return total * jnp.where(in_range, 1.0, jnp.nan)  # so are its gradients

    return reachable_or_infinite(jax.vmap(score_one)(emissions, tags, lengths))


def _decode(
    params: CRFParams, emissions: Array, lengths: Array, n: int, method: str
) -> tuple[Array, Array]:
    """`decode_nbest` after `prepare_params`; several only step by step."""
    B, T, K = emissions.shape
    parallel = goes_parallel(method, emissions)
    # A sentence without steps has one path.
    empty = jnp.array([0.0] + [-jnp.inf] * (n - 1), jnp.float32)
    if not T:
        return jnp.zeros((B, n, 0), jnp.int32), jnp.tile(empty, (B, 1))
    params = CRFParams(*map(finite_or_disallowed, params))
    if parallel:
        emissions = finite_or_disallowed(emissions)
        only, offset, rounds = forward_parallel(best, params, emissions, lengths)
        last = only[None]
        trace = partial(best_path_parallel, rounds, T)
    else:
        last, offset, kept = forward_best(n, params, emissions, lengths)
        trace = partial(best_paths, params, kept)
    totals, ends = ranked((last + params.end[None, :, None]).reshape(n * K, B), n)
    scores = reachable_or_infinite(totals + offset[None])  # [n, B]
    scores = jnp.where(lengths[None] > 0, scores, empty[:, None])
    tags = trace(ends, jnp.where(scores > -jnp.inf, lengths[None], 0))  # [T, n, B]
    return tags.transpose(2, 1, 0), scores.T


def _surprisal(part: Array, whole: Array) -> Array:
    """-log of the fraction that exp(part) is of exp(whole); rounding never makes it negative."""
    return jnp.where(part == -jnp.inf, jnp.inf, jnp.maximum(whole - part, 0.0))


def _tags_surprisal(
    params: CRFParams, emissions: Array, tags: Array, lengths: Array, method: str
) -> Array:
    """`loss` after `prepare`."""
    emissions = centred(emissions)
    part = _score(params, emissions, tags, lengths)
    return _surprisal(part, log_total(params, emissions, lengths, method))

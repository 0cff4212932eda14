"""From emissions to tags, on one device: the best paths, their probability, their terms'."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from text import crf
from text.batches import SCORING_TOKENS, bucket_widths, scoring_batches
from text.crf import CRFParams
from text.tags import TagScheme

# What of a sentence's probabilities becomes its terms: those of its best path, or those that are
# more likely than not.
DECODINGS = ("path", "terms")
# Shapes to compile for the sentences of a call: a CRF of few tags takes less time for padding.
WIDTHS = 2

# The terms of a sentence, as tokens [first, last), with their probabilities.
Chances = dict[tuple[int, int], float]

_decode = jax.jit(crf.decode)
_marginals = jax.jit(crf.marginals)
_decode_nbest = jax.jit(crf.decode_nbest, static_argnames="n")
_loss = jax.jit(crf.loss)
_path_log_probability = jax.jit(crf.path_log_probability)
_log_probability_of = jax.jit(crf.log_probability_of)


class Path(NamedTuple):
    """A tagging of a sentence."""

    tags: np.ndarray  # int32 [T]
    probability: float  # among the allowed taggings


def best_tags(
    params: CRFParams,
    emissions: Sequence[np.ndarray],
    allowed: CRFParams | None,
    widths: Sequence[int] = (),
) -> list[np.ndarray]:
    """The best tags, int32 [T], of every sentence.

    Args:
        params: of K tags.
        emissions: float32 [T, K] of each sentence.
        allowed: which moves are legal; None allows all.
        widths: that sentences are padded to, each of which is a program to compile; () are two
            that fit them.
    """
    found: list[np.ndarray] = [np.empty(0, np.int32)] * len(emissions)
    for members, padded, lengths in _batches(emissions, widths):
        tags = np.asarray(_decode(params, padded, lengths, allowed=allowed)[0])
        for place, index in enumerate(members):
            found[index] = tags[place, : lengths[place]]
    return found


def likely_terms(
    params: CRFParams,
    emissions: Sequence[np.ndarray],
    scheme: TagScheme,
    widths: Sequence[int] = (),
) -> list[Chances]:
    """The terms of every sentence that are more likely than not, in order, and how likely.

    No other terms have fewer expected mistakes, a missed one and a spurious one counting alike;
    a best path is the likeliest tagging as a whole, whose terms may each be unlikely (minimum
    Bayes risk; Goodman 1996, "Parsing algorithms and metrics"). Terms that share a token exclude
    each other, so no two of these do.

    Args as of `best_tags` and `term_probabilities`; only legal tags are considered.
    """
    ranges = _likely_ranges(params, emissions, scheme, widths)
    found = term_probabilities(params, emissions, ranges, scheme, widths)
    return [{term: chance for term, chance in row.items() if chance > 0.5} for row in found]


def _likely_ranges(
    params: CRFParams,
    emissions: Sequence[np.ndarray],
    scheme: TagScheme,
    widths: Sequence[int],
) -> list[list[tuple[int, int]]]:
    """All terms [first, last) that may be more likely than not, and some others.

    Each tag of such a term is so, too, and a tag that would make it longer is not.
    """
    found: list[list[tuple[int, int]]] = [[] for _ in emissions]
    allowed = scheme.allowed()
    for members, padded, lengths in _batches(emissions, widths):
        chances = np.asarray(_marginals(params, padded, lengths, allowed=allowed))
        tags = np.where(chances.max(axis=2) > 0.5, chances.argmax(axis=2), 0)  # 0 is O
        for place, index in enumerate(members):
            found[index] = scheme.decode_ranges(tags[place, : lengths[place]])
    return found


def losses(
    params: CRFParams,
    emissions: Sequence[np.ndarray],
    tags: Sequence[Sequence[int]],
    widths: Sequence[int] = (),
) -> np.ndarray:
    """The negative log-likelihood of the gold tags of every sentence, float64 [N]."""
    found = np.zeros(len(emissions))
    for members, padded, lengths in _batches(emissions, widths):
        gold = np.zeros(padded.shape[:2], np.int32)
        for place, index in enumerate(members):
            gold[place, : lengths[place]] = tags[index]
        found[members] = np.asarray(_loss(params, padded, gold, lengths))[: len(members)]
    return found


def best_paths(
    params: CRFParams, emissions: Sequence[np.ndarray], allowed: CRFParams | None, count: int
) -> list[list[Path]]:
    """The `count` best taggings of every sentence, fewer where there are not so many."""
    found: list[list[Path]] = [[] for _ in emissions]
    for members, padded, lengths in _batches(emissions):
        tags, scores = map(
            np.asarray, _decode_nbest(params, padded, lengths, count, allowed=allowed)
        )
        for rank in range(count):
            logs = _path_log_probability(params, padded, tags[:, rank], lengths, allowed=allowed)
            chances = np.exp(np.asarray(logs))
            for place, index in enumerate(members):
                if np.isfinite(scores[place, rank]):
                    path = Path(tags[place, rank, : lengths[place]], float(chances[place]))
                    found[index].append(path)
    return found


def term_probabilities(
    params: CRFParams,
    emissions: Sequence[np.ndarray],
    ranges: Sequence[Sequence[tuple[int, int]]],
    scheme: TagScheme,
    widths: Sequence[int] = (),
) -> list[Chances]:
    """The probability of each term: of all legal taggings with just this term at this place.

    Args:
        params, emissions, widths: as for `best_tags`.
        ranges: the terms of each sentence, as tokens [first, last), none of them twice.
        scheme: of the tags.
    """
    allowed = scheme.allowed()
    terms = [(n, term) for n, sentence in enumerate(ranges) for term in sentence]
    possible = [scheme.taggings_with(len(emissions[n]), *term) for n, term in terms]
    chances = np.zeros(len(terms))
    for members, padded, lengths in _batches([emissions[n] for n, _ in terms], widths):
        mask = np.ones(padded.shape, bool)
        for place, index in enumerate(members):
            mask[place, : lengths[place]] = possible[index]
        logs = _log_probability_of(params, padded, lengths, mask, allowed=allowed)
        chances[members] = np.exp(np.asarray(logs))[: len(members)]
    found: list[Chances] = [{} for _ in ranges]
    for (n, term), chance in zip(terms, chances, strict=True):
        found[n][term] = min(float(chance), 1.0)
    return found


def _batches(
    emissions: Sequence[np.ndarray], widths: Sequence[int] = ()
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(sentences [b], emissions float32 [B, T, K], lengths int32 [B]) of few shapes, b <= B."""
    if not len(emissions):
        return
    lengths = np.array([len(row) for row in emissions], np.int32)
    widths = widths or bucket_widths(lengths, WIDTHS)
    for rows in scoring_batches(lengths, widths, SCORING_TOKENS):
        members = rows["index"][rows["weight"] > 0]
        padded = np.zeros((*rows["column"].shape, emissions[members[0]].shape[1]), np.float32)
        for place, index in enumerate(members):
            padded[place, : lengths[index]] = emissions[index]
        padded_lengths = np.zeros(len(padded), np.int32)
        padded_lengths[: len(members)] = lengths[members]
        yield members, padded, padded_lengths

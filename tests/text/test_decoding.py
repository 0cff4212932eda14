"""Decoding of ragged lists of sentences, against enumeration."""

import itertools

import numpy as np
import pytest

from text import decoding
from text.crf import CRFParams
from text.tags import SCHEMES

LENGTHS = (3, 0, 5, 1, 4)


def make(scheme, seed=0):
    """(parameters, emissions of each sentence)."""
    rng = np.random.default_rng(seed)
    K = len(SCHEMES[scheme].tags)
    shapes = ((K, K), (K,), (K,))
    params = CRFParams(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))
    return params, [rng.normal(size=(n, K), scale=2).astype(np.float32) for n in LENGTHS]


def enumerate_paths(params, emissions, allowed):
    """(probability, tags) of every allowed path, the best first."""
    found = []
    for tags in itertools.product(range(len(params.start)), repeat=len(emissions)):
        moves = list(itertools.pairwise(tags))
        if allowed and not (
            allowed.start[tags[0]]
            and allowed.end[tags[-1]]
            and all(allowed.transitions[move] for move in moves)
        ):
            continue
        score = params.start[tags[0]] + params.end[tags[-1]]
        score += sum(emissions[t, tag] for t, tag in enumerate(tags))
        score += sum(params.transitions[move] for move in moves)
        found.append((float(np.exp(np.float64(score))), tags))
    total = sum(chance for chance, _ in found)
    return sorted(((chance / total, tags) for chance, tags in found), reverse=True)


@pytest.mark.parametrize("scheme", ["bio", "io"])
@pytest.mark.parametrize("constrained", [True, False])
def test_best_paths_and_term_probabilities(scheme, constrained):
    params, emissions = make(scheme)
    tags_of = SCHEMES[scheme]
    allowed = tags_of.allowed() if constrained else None
    best = decoding.best_tags(params, emissions, allowed)
    paths = decoding.best_paths(params, emissions, allowed, 3)
    ranges = [tags_of.decode_ranges(row) for row in best]
    chances = decoding.term_probabilities(params, emissions, ranges, tags_of)
    for n, length in enumerate(LENGTHS):
        if not length:
            assert not len(best[n]) and chances[n] == {}
            assert [path.probability for path in paths[n]] == pytest.approx([1.0])
            continue
        known = enumerate_paths(params, emissions[n], allowed)
        assert tuple(best[n]) == known[0][1]
        assert [tuple(path.tags) for path in paths[n]] == [tags for _, tags in known[:3]]
        expected = [chance for chance, _ in known[:3]]
        assert [path.probability for path in paths[n]] == pytest.approx(expected, rel=1e-4)
        legal = enumerate_paths(params, emissions[n], tags_of.allowed())
        assert list(chances[n]) == ranges[n]
        for term, chance in chances[n].items():
            with_it = sum(p for p, tags in legal if term in tags_of.decode_ranges(tags))
            assert chance == pytest.approx(with_it, rel=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("seed", range(1, 5))
def test_likely_terms_are_those_of_more_than_half(scheme, seed):
    params, emissions = make(scheme, seed)
    tags_of = SCHEMES[scheme]
    found = decoding.likely_terms(params, emissions, tags_of)
    marked = 0
    for n, length in enumerate(LENGTHS):
        legal = enumerate_paths(params, emissions[n], tags_of.allowed()) if length else []
        terms = {term for _, tags in legal for term in tags_of.decode_ranges(tags)}
        likely = {
            term
            for term in terms
            if sum(p for p, tags in legal if term in tags_of.decode_ranges(tags)) > 0.5
        }
        assert set(found[n]) == likely and list(found[n]) == sorted(found[n])
        tagged = tags_of.encode_ranges(length, list(found[n]))
        assert tags_of.decode_ranges(tagged) == list(found[n])
        marked += len(likely)
    assert marked


def test_a_best_path_may_have_terms_that_are_unlikely():
    """Three taggings of one token and the next: B O has most, yet no term at all is likely."""
    scores = np.log(np.array([[0.3, 0.4, 0.3], [0.3, 0.4, 0.3]], np.float32))
    none = CRFParams(*(np.zeros(shape, np.float32) for shape in ((3, 3), 3, 3)))
    bio = SCHEMES["bio"]
    best = decoding.best_tags(none, [scores], bio.allowed())[0]
    assert bio.decode_ranges(best)
    assert decoding.likely_terms(none, [scores], bio) == [{}]


def test_losses_are_minus_the_log_probability():
    params, emissions = make("bio", seed=1)
    rng = np.random.default_rng(2)
    tags = [rng.integers(0, 3, n).tolist() for n in LENGTHS]
    found = decoding.losses(params, emissions, tags)
    for n, length in enumerate(LENGTHS):
        chances = (
            dict((t, p) for p, t in enumerate_paths(params, emissions[n], None)) if length else {}
        )
        expected = -np.log(chances[tuple(tags[n])]) if length else 0.0
        assert found[n] == pytest.approx(expected, abs=1e-4)


def test_long_sentences_keep_their_alternatives():
    params, _ = make("bio")
    emissions = [np.random.default_rng(3).normal(size=(n, 3)).astype(np.float32) for n in (2000, 3)]
    paths = decoding.best_paths(params, emissions, None, 4)
    assert [len(found) for found in paths] == [4, 4]
    assert all(len(path.tags) == 2000 for path in paths[0])


def test_more_sentences_than_a_batch():
    params, emissions = make("bio")
    many = emissions * 200
    found = decoding.best_tags(params, many, None)
    alone = decoding.best_tags(params, emissions, None)
    assert [row.tolist() for row in found] == [row.tolist() for row in alone] * 200


def test_the_widths_of_the_batches_change_nothing():
    params, emissions = make("bio")
    tags = [np.ones(len(row), np.int32) for row in emissions]
    longest = max(map(len, emissions))
    for widths in ((longest,), (3, 40), (1,)):  # longer sentences get a usual one
        likely = decoding.likely_terms(params, emissions, SCHEMES["bio"], widths)
        for row, other in zip(
            likely, decoding.likely_terms(params, emissions, SCHEMES["bio"]), strict=True
        ):
            assert row == pytest.approx(other, rel=1e-5)
        found = decoding.best_tags(params, emissions, None, widths)
        usual = decoding.best_tags(params, emissions, None)
        assert [row.tolist() for row in found] == [row.tolist() for row in usual]
        np.testing.assert_allclose(
            decoding.losses(params, emissions, tags, widths),
            decoding.losses(params, emissions, tags),
            rtol=1e-5,
        )


def test_nothing_to_decode():
    params, _ = make("bio")
    assert decoding.best_tags(params, [], None) == []
    assert decoding.likely_terms(params, [], SCHEMES["bio"]) == []
    assert decoding.losses(params, [], []).tolist() == []

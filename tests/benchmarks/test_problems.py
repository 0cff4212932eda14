"""What both sides are given has the shapes that their files promise."""

import numpy as np
import pytest

from benchmarks.problems import (
    EMBEDDING,
    TAGS,
    WORDS,
    make_images,
    make_problem,
    make_sentences,
    path_score,
)
from text import crf


def test_a_crf_problem():
    problem = make_problem(5, 8, 4)
    assert [part.shape for part in problem.params] == [(4, 4), (4,), (4,)]
    assert problem.emissions.shape == (5, 8, 4) and problem.tags.shape == (5, 8)
    assert problem.lengths[0] == 8 and (np.diff(problem.lengths) <= 0).all()
    assert problem.lengths.min() >= 4 and 0 <= problem.tags.min() and problem.tags.max() < 4


def test_the_score_of_a_path_is_that_of_the_crf():
    problem = make_problem(2, 6, 3)
    scores = crf.score(
        crf.CRFParams(*problem.params), problem.emissions, problem.tags, problem.lengths
    )
    for sentence, (tags, length) in enumerate(zip(problem.tags, problem.lengths, strict=True)):
        found = path_score(problem, sentence, tags[:length])
        np.testing.assert_allclose(found, scores[sentence], rtol=1e-5)


def test_sentences_and_images():
    tokens, tags, lengths, vectors = make_sentences(3, 7)
    assert tokens.shape == tags.shape == (3, 7) and (lengths == 7).all()
    assert 0 < tokens.min() and tokens.max() < WORDS and tags.max() < TAGS
    assert vectors.shape == (WORDS, EMBEDDING)
    images, labels = make_images(6)
    assert images.shape == (6, 32, 32, 3) and labels.shape == (6,) and labels.max() < 10


@pytest.mark.parametrize("make", [lambda: make_problem(2, 3, 4), lambda: make_sentences(2, 3)])
def test_both_sides_are_given_the_same(make):
    one, other = make(), make()
    for a, b in zip(one[1:], other[1:], strict=True):
        np.testing.assert_array_equal(a, b)

"""What both sides are given has the shapes that their files promise."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.problems import (
    CONVOLUTIONS,
    EMBEDDING,
    MAPS,
    TAGS,
    WORDS,
    make_images,
    make_problem,
    make_sentences,
    path_score,
)
from common.describe import describe
from text import crf
from vision import models


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


def test_the_operations_of_a_step_are_those_of_our_resnet18():
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    rows = describe(models.create("resnet18", 10), image, train=False)
    found, norms = Counter(), Counter()
    for row in rows:
        if row.kind.startswith("Conv"):
            found[row.inputs[1:], row.outputs[1:], row.flops] += 1
        elif row.kind == "BatchNorm":
            norms[row.outputs[2:]] += 1
    expected = Counter()
    for layer in CONVOLUTIONS:
        _, before, after = layer.shapes(1)
        expected[before[1:], after[1:], layer.flops(1)] += layer.times
    assert found == expected
    assert norms == {place: relu + plain for place, (relu, plain, _) in MAPS.items()}
    # A block ends in an addition, and has a ReLU in its middle; the stem has one, too.
    assert sum(counts[2] for counts in MAPS.values()) == 8
    assert sum(counts[0] for counts in MAPS.values()) == 1 + 8


def test_a_layer_says_what_it_is():
    names = [layer.name for layer in CONVOLUTIONS]
    assert len(set(names)) == len(names)
    assert names[2] == "3x3, 64 to 128 on 32x32, stride 2"

import re

import numpy as np
import pytest

from text.scoring import (
    Counts,
    exact_counts,
    keyword_counts,
    padded_accuracy,
    scores,
    sentence_counts,
    tag_confusion,
    token_counts,
)
from text.sentences import Sentence, Span

# Names, true tags, predicted tags (a word per sentence), then precision, recall and F1 as seqeval
# gives them. Made in an environment of their own (numpy 2.4.6, scikit-learn 1.9.1) with
#   pip install seqeval==1.2.2
#   from seqeval.metrics import f1_score, precision_score, recall_score
#   from seqeval.scheme import IOB2
#   f1_score(true, predicted, mode="strict", scheme=IOB2, zero_division=0)
# on B and I written as B-T and I-T, rounded to six places. Without mode and scheme, where an I
# after an O opens a term, it gives DEFAULT_STRAY for "stray I" and the same for the others.
SEQEVAL_STRICT = [
    ("all right", "OBIOB BOO OOO BIIOBI", "OBIOB BOO OOO BIIOBI", 1.0, 1.0, 1.0),
    ("bounds", "OBIIOOB OBO BIO", "OBIOOOB OBI OBO", 0.25, 0.25, 0.25),
    ("adjacent", "OBBIO BIBI OBOBO", "OBIIO BIBI OBBBO", 0.666667, 0.666667, 0.666667),
    ("stray I", "OBIO BOBI OOO OBIIO", "OIIO BOOI OIO IBIIO", 1.0, 0.5, 0.666667),
    ("nothing found", "OBO BII OO", "OOO OOO OO", 0.0, 0.0, 0.0),
    ("nothing to find", "OOO O OO", "OBI O BO", 0.0, 0.0, 0.0),
    (
        "mixed",
        "BIOOBOOBII OOBOO OBIIOBI BOB OOOOO",
        "BIOOBIOBIO OOBOB OBIIOOO BIO OOBIO",
        0.375,
        0.375,
        0.375,
    ),
]
DEFAULT_STRAY = (0.5, 0.75, 0.6)

FOOD = Sentence("1", "The food and the wine list: food!", (Span(4, 8), Span(17, 26), Span(28, 32)))
PLAIN = Sentence("2", "Never again.")
PHONE = Sentence("3", "屏幕和电池", (Span(0, 2), Span(3, 5)))


def read_spans(words: str, term: str) -> list[list[Span]]:
    return [[Span(*m.span()) for m in re.finditer(term, word)] for word in words.split()]


@pytest.mark.parametrize("name, true, predicted, precision, recall, f1", SEQEVAL_STRICT)
def test_exact_is_seqevals(name, true, predicted, precision, recall, f1):
    strict = (precision, recall, f1)
    default = DEFAULT_STRAY if name == "stray I" else strict
    for term, expected in (("BI*", strict), ("[BI]I*", default)):
        counts = exact_counts(read_spans(true, term), read_spans(predicted, term))
        ratios = (counts.precision, counts.recall, counts.f1)
        assert ratios == pytest.approx(expected, abs=1e-6), term


def test_ratios_by_hand():
    counts = Counts(gold=8, found=5, right=3)
    assert counts.precision == 3 / 5
    assert counts.recall == 3 / 8
    assert counts.f1 == pytest.approx(2 * (3 / 5) * (3 / 8) / (3 / 5 + 3 / 8))
    assert counts + Counts(1, 2, 1) == Counts(9, 7, 4)


@pytest.mark.parametrize("counts", [Counts(), Counts(gold=3), Counts(found=3), Counts(2, 3, 0)])
def test_undefined_ratios_are_zero(counts):
    assert (counts.precision, counts.recall, counts.f1) == (0, 0, 0)


def test_exact_by_hand():
    gold = [[Span(0, 4), Span(0, 9)], [Span(0, 4)], []]
    predicted = [[Span(0, 9), Span(0, 9), Span(5, 9)], [], [Span(0, 4)]]
    assert exact_counts(gold, predicted) == Counts(gold=3, found=3, right=1)
    assert exact_counts(predicted, gold) == Counts(gold=3, found=3, right=1)
    assert exact_counts([], []) == Counts()


def test_keywords_are_distinct_strings_of_one_sentence():
    # The second "food" is the first again; "list" is half a term; the case of letters counts.
    found = [[Span(28, 32), Span(22, 26), Span(0, 3)], [Span(0, 5)], [Span(3, 5), Span(0, 3)]]
    assert keyword_counts([FOOD, PLAIN, PHONE], found) == Counts(gold=4, found=6, right=2)
    other_sentence = [[], [], [Span(0, 2)]]
    assert keyword_counts([PHONE, PLAIN, FOOD], other_sentence).right == 0


def test_tokens_by_hand():
    # 1 = B and 2 = I count alike, and the lengths differ from sentence to sentence.
    gold = [[0, 1, 2, 2], [1], [0, 0], []]
    predicted = [np.array([1, 2, 1, 0], np.int32), [0], [0, 2], []]
    assert token_counts(gold, predicted) == Counts(gold=4, found=4, right=2)
    assert token_counts([], []) == Counts()


def test_sentences_may_be_scored_in_parts():
    rng = np.random.default_rng(0)
    gold, predicted = ([rng.integers(0, 3, n) for n in range(12)] for _ in range(2))
    whole = token_counts(gold, predicted)
    assert whole == token_counts(gold[:5], predicted[:5]) + token_counts(gold[5:], predicted[5:])


@pytest.mark.parametrize("num_tags", [2, 3, 5])
def test_tag_confusion_by_a_slow_loop(num_tags):
    rng = np.random.default_rng(num_tags)
    gold, predicted = ([rng.integers(0, num_tags, n) for n in (7, 0, 30, 1)] for _ in range(2))
    expected = np.zeros((num_tags, num_tags), int)
    for true_row, found_row in zip(gold, predicted, strict=True):
        for true, found in zip(true_row, found_row, strict=True):
            expected[true, found] += 1
    counts = tag_confusion(gold, predicted, num_tags)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, expected)
    tokens = token_counts(gold, predicted)
    assert tokens == Counts(counts[1:].sum(), counts[:, 1:].sum(), counts[1:, 1:].sum())


def test_no_tokens_make_an_empty_confusion():
    np.testing.assert_array_equal(tag_confusion([[]], [[]], 3), np.zeros((3, 3)))


@pytest.mark.parametrize("wrong", [3, -1])
@pytest.mark.parametrize("swap", [False, True])
def test_a_tag_outside_the_scheme_is_refused(wrong, swap):
    rows = ([[0, 1, 2]], [[0, wrong, 2]])
    with pytest.raises(ValueError, match=r"are not in \[0, 3\)"):
        tag_confusion(*(rows[::-1] if swap else rows), 3)


@pytest.mark.parametrize("count", [token_counts, lambda *rows: tag_confusion(*rows, 3)])
def test_unequal_rows_of_tags_are_refused(count):
    with pytest.raises(ValueError, match="sentence 1 has 3 true tags, 4 predicted"):
        count([[0, 1], [0, 1, 2]], [[0, 1], [0, 1, 2, 0]])
    with pytest.raises(ValueError, match="2 sentences of true tags, 1 predicted"):
        count([[0, 1], [0]], [[0, 1]])


def test_unequal_numbers_of_sentences_are_refused():
    with pytest.raises(ValueError):
        exact_counts([[Span(0, 1)], []], [[]])
    with pytest.raises(ValueError):
        keyword_counts([FOOD, PLAIN], [[]])
    with pytest.raises(ValueError, match="1 sentences, 2 rows of tags"):
        scores([FOOD], [[]], [[0], [0]], [[0], [0]], "val")


def test_sentence_counts_are_of_each_sentence():
    found = [[Span(4, 8), Span(22, 26)], [Span(0, 3)]]
    gold_tags = [[0, 1, 0, 0, 1, 2, 0, 1, 0], [0, 0, 0]]
    found_tags = [[0, 1, 0, 0, 0, 1, 0, 0, 0], [1, 0, 0]]
    counts = sentence_counts([FOOD, PLAIN], found, gold_tags, found_tags)
    assert {name: rows.tolist() for name, rows in counts.items()} == {
        "exact_f1": [[3, 2, 1], [0, 1, 0]],
        "token_f1": [[4, 2, 2], [0, 1, 0]],
        "keyword_f1": [[2, 2, 1], [0, 1, 0]],
    }


def test_scores_name_their_scorer():
    found = [[Span(4, 8), Span(22, 26)], []]
    gold_tags = [[0, 1, 0, 0, 1, 2, 0, 1, 0], [0, 0, 0]]
    found_tags = [[0, 1, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0]]
    assert scores([FOOD, PLAIN], found, gold_tags, found_tags, "test") == pytest.approx(
        {
            "test/exact_precision": 1 / 2,
            "test/exact_recall": 1 / 3,
            "test/exact_f1": 2 / 5,
            "test/token_precision": 1,
            "test/token_recall": 2 / 4,
            "test/token_f1": 2 / 3,
            "test/keyword_precision": 1 / 2,
            "test/keyword_recall": 1 / 2,
            "test/keyword_f1": 1 / 2,
        }
    )


def test_padded_accuracy_counts_padding_as_report_b_did():
    counts = {"token_f1": np.array([[2, 1, 1], [0, 1, 0]])}  # wrong: one missed, one invented
    assert padded_accuracy(counts, length=10) == pytest.approx(
        {"padded/accuracy": 18 / 20, "padded/nothing": 18 / 20}
    )

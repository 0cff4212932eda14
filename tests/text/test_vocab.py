"""Rows of words, spelling in numbers, and the shapes of words."""

import json

import numpy as np
import pytest

from common.errors import InputError
from text.vocab import SHAPES, UNKNOWN_CHARACTER, Characters, Vocabulary, word_shapes

SENTENCES = [["the", "Screen", "is", "the", "best"], [], ["is", "the", "屏幕", "best"]]


def test_words_come_by_frequency_then_code_point():
    assert Vocabulary.build(SENTENCES).words == ("the", "best", "is", "Screen", "屏幕")


def test_the_order_of_the_sentences_does_not_matter():
    assert Vocabulary.build(SENTENCES[::-1]) == Vocabulary.build(SENTENCES)


def test_row_0_is_left_to_padding():
    vocabulary = Vocabulary.build(SENTENCES)
    rows = vocabulary.rows(["屏幕", "the", "the", "Screen"])
    assert rows.dtype == np.int32 and rows.tolist() == [5, 1, 1, 4]
    assert vocabulary.rows(vocabulary.words).tolist() == [1, 2, 3, 4, 5]
    assert vocabulary.rows([]).shape == (0,) and vocabulary.rows([]).dtype == np.int32


def test_case_makes_another_word():
    with pytest.raises(KeyError, match="screen"):
        Vocabulary.build(SENTENCES).rows(["Screen", "screen"])


def test_extending_keeps_the_old_rows_and_leaves_the_original_alone():
    vocabulary = Vocabulary.build(SENTENCES)
    longer = vocabulary.extend(["zoom", "is", "apps", "zoom"])
    assert longer.words == (*vocabulary.words, "zoom", "apps")
    assert len(vocabulary) == 5 and len(longer) == 7
    assert "zoom" in longer and "zoom" not in vocabulary
    assert longer.extend(longer.words) == longer


@pytest.mark.parametrize(
    "value", [Vocabulary.build(SENTENCES), Vocabulary(()), Characters.build(["Screen", "屏幕\n"])]
)
def test_json_round_trip(value):
    assert type(value).from_json(json.loads(json.dumps(value.to_json()))) == value


@pytest.mark.parametrize("kind", [Vocabulary, Characters])
@pytest.mark.parametrize(
    "listed, part", [(["a", "b", "a"], "'a' twice"), (["a", ""], "not a text"), ([3], "not a text")]
)
def test_damaged_lists_are_refused(kind, listed, part):
    with pytest.raises(InputError, match=part):
        kind.from_json(listed)


def test_characters_come_by_frequency_then_code_point():
    characters = Characters.build(["abbc", "bc", "d"])
    assert characters.characters == ("b", "c", "a", "d")
    assert len(characters) == 6


def test_spelling_pads_and_knows_unknown_characters():
    encoded = Characters.build(["abbc"]).encode(["cab", "", "xb"], 4)
    assert encoded.dtype == np.int32
    assert encoded.tolist() == [[4, 3, 2, 0], [0, 0, 0, 0], [UNKNOWN_CHARACTER, 2, 0, 0]]


@pytest.mark.parametrize("width, kept", [(2, "ah"), (5, "abcgh"), (6, "abcfgh"), (8, "abcdefgh")])
def test_long_words_keep_both_ends(width, kept):
    characters = Characters.build(["abcdefgh"])
    encoded = characters.encode(["abcdefgh"], width)
    assert "".join(characters.characters[number - 2] for number in encoded[0]) == kept


def test_every_number_is_below_the_length():
    words = ["Überraschung", "wi-fi", "2.4Ghz"]
    characters = Characters.build(words)
    encoded = characters.encode([*words, "?!"], 12)
    assert encoded.max() == len(characters) - 1 and encoded.min() == 0


@pytest.mark.parametrize(
    "word, expected",
    [
        ("screen", {"lower"}),
        ("Screen", {"capitalised"}),
        ("I", {"capitalised"}),
        ("HDMI", {"upper"}),
        ("iPhone", {"mixed"}),
        ("MacBook", {"mixed"}),
        ("USB3", {"upper", "has digit"}),
        ("2.4Ghz", {"mixed", "has digit", "joined"}),
        ("1,000", {"has digit", "number", "joined"}),
        ("15", {"has digit", "number"}),
        ("...", {"symbols"}),
        ("wi-fi", {"lower", "joined"}),
        ("屏幕", set()),
        ("", set()),
    ],
)
def test_shapes(word, expected):
    shapes = word_shapes(["other", word])
    assert shapes.dtype == np.float32 and shapes.shape == (2, len(SHAPES))
    assert {name for name, value in zip(SHAPES, shapes[1], strict=True) if value} == expected


def test_shapes_of_no_words():
    assert word_shapes([]).shape == (0, len(SHAPES))


def test_letter_case_columns_exclude_each_other():
    words = ["a", "A", "aB", "Ab", "AB", "é", "É", "ß", "3a", "3A", "A3", "-A", "-aB", "屏A"]
    assert (word_shapes(words)[:, :4].sum(axis=1) == 1).all()

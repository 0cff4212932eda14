"""Tags from spans and back: without loss where tokens allow it, leniently where tags are odd."""

from itertools import product

import numpy as np
import pytest

from text.sentences import Sentence, Span
from text.tags import SCHEMES, ceiling, term_ranges
from text.tokenizers import characters, jieba, words


def ceiling_of(sentences, tokenize, scheme):
    return ceiling(sentences, [tokenize(sentence.text) for sentence in sentences], scheme)


def make_tokens(random, count: int) -> list[Span]:
    """Tokens of varying length with varying gaps."""
    tokens, place = [], 0
    for length, gap in zip(random.integers(1, 6, count), random.integers(0, 3, count), strict=True):
        tokens.append(Span(place + int(gap), place + int(gap + length)))
        place += int(gap + length)
    return tokens


def draw_ranges(random, count: int, least_gap: int) -> list[tuple[int, int]]:
    """Token ranges in order that do not overlap, at least `least_gap` tokens apart."""
    ranges, place = [], 0
    while place < count:
        first = place + int(random.integers(0, 3))
        last = first + int(random.integers(1, 5))
        if last > count:
            break
        ranges.append((first, last))
        place = last + least_gap
    return ranges


@pytest.mark.parametrize(
    "name, least_gap", [("bio", 0), ("bio", 1), ("bioes", 0), ("bioes", 1), ("io", 1)]
)
def test_round_trip(name, least_gap):
    scheme, random = SCHEMES[name], np.random.default_rng(7)
    for count in range(30):
        tokens = make_tokens(random, count)
        ranges = draw_ranges(random, count, least_gap)
        spans = tuple(Span(tokens[first].start, tokens[last - 1].end) for first, last in ranges)
        tags = scheme.encode(tokens, spans)
        assert len(tags) == count
        assert scheme.decode_ranges(tags) == ranges
        assert scheme.decode(tokens, tags) == spans


@pytest.mark.parametrize(
    "name, expected", [("bio", "OBBIBIIO"), ("bioes", "OSBEBIEO"), ("io", "OIIIIIIO")]
)
def test_encode_writes_the_scheme(name, expected):
    scheme = SCHEMES[name]
    tokens = [Span(3 * n, 3 * n + 2) for n in range(8)]
    spans = [Span(9 + 3, 20), Span(3, 5), Span(6, 11)]  # not in order
    tags = scheme.encode(tokens, spans)
    assert "".join(scheme.tags[tag] for tag in tags) == expected
    joined = ((1, 7),) if name == "io" else ((1, 2), (2, 4), (4, 7))
    assert tuple(scheme.decode_ranges(tags)) == joined  # io cannot part adjacent terms


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_overlapping_and_cutting_spans(scheme):
    tokens = [Span(0, 4), Span(5, 9), Span(10, 14), Span(20, 24)]

    def decoded(*spans):
        return scheme.decode(tokens, scheme.encode(tokens, [Span(*span) for span in spans]))

    assert decoded((0, 4), (0, 9), (5, 9)) == ((0, 9),)  # the longest
    assert decoded((5, 14), (0, 9)) == ((0, 9),)  # as long: the first
    assert decoded((6, 8)) == ((5, 9),)  # inside a token
    assert decoded((3, 6)) == ((0, 9),)  # cuts two
    assert decoded((10, 12), (13, 14)) == ((10, 14),)  # two terms in a token
    assert decoded((15, 19)) == ()  # no token there
    assert decoded() == ()
    assert scheme.encode([], []) == [] and scheme.decode([], []) == ()


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_allowed_are_the_sequences_that_encoding_gives(scheme):
    transitions, start, end = scheme.allowed()
    assert transitions.dtype == start.dtype == end.dtype == bool
    for length in range(1, 5):
        tokens = [Span(2 * n, 2 * n + 1) for n in range(length)]
        for tags in product(range(len(scheme.tags)), repeat=length):
            steps = all(transitions[pair] for pair in zip(tags, tags[1:], strict=False))
            is_allowed = bool(start[tags[0]] and end[tags[-1]] and steps)
            again = scheme.encode(tokens, scheme.decode(tokens, tags))
            assert is_allowed == (again == list(tags)), tags


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_taggings_with_a_term_are_those_that_decode_to_it(scheme):
    length = 4
    for first, last in [(a, b) for a in range(length) for b in range(a + 1, length + 1)]:
        possible = scheme.taggings_with(length, first, last)
        for tags in product(range(len(scheme.tags)), repeat=length):
            ranges = scheme.decode_ranges(tags)
            tokens = [Span(n, n + 1) for n in range(length)]
            if scheme.encode(tokens, scheme.decode(tokens, tags)) == list(tags):  # is allowed
                chosen = all(row[tag] for row, tag in zip(possible, tags, strict=True))
                assert chosen == ((first, last) in ranges), (first, last, tags)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_outside_is_the_first_tag(scheme):
    assert scheme.tags[0] == "O" and set(scheme.term) == set(scheme.tags[1:])
    assert SCHEMES[scheme.name] is scheme


@pytest.mark.parametrize(
    "tags, expected",
    [
        ("", []),
        ("O O", []),
        ("I O I I", [(0, 1), (2, 4)]),
        ("O I B I", [(1, 2), (2, 4)]),
        ("B B I", [(0, 1), (1, 3)]),
        ("B E E", [(0, 2), (2, 3)]),
        ("B I O E", [(0, 2), (3, 4)]),
        ("S I E S S", [(0, 1), (1, 3), (3, 4), (4, 5)]),
        ("U B L U", [(0, 1), (1, 3), (3, 4)]),
        ("B I S", [(0, 2), (2, 3)]),
        ("B-ASP I-ASP I-X I-X O", [(0, 2), (2, 4)]),
        ("B-A-1 I-A-1 I-A-2", [(0, 2), (2, 3)]),
        ("B-A E-B", [(0, 1), (1, 2)]),
    ],
)
def test_lenient_reading(tags, expected):
    assert term_ranges(tags.split()) == expected


def test_as_many_tags_as_tokens():
    with pytest.raises(ValueError, match="2 tokens need as many tags, got 1"):
        SCHEMES["bio"].decode([Span(0, 1), Span(1, 2)], [0])


@pytest.mark.parametrize("tokenize, expected", [(characters, 1.0), (words, 1.0), (jieba, 0.5)])
def test_ceiling_of_chinese(tokenize, expected):
    sentences = [Sentence("1", "手机的屏幕", (Span(0, 1), Span(3, 5)))]  # half of 手机, and 屏幕
    for name in ("bio", "bioes", "io"):
        assert ceiling_of(sentences, tokenize, SCHEMES[name]) == expected


def test_ceiling_counts_what_a_scheme_loses():
    sentences = [
        Sentence("1", "good wine list", (Span(5, 9), Span(10, 14))),
        Sentence("2", "the bar", (Span(4, 7),)),
        Sentence("3", "fine"),
    ]
    assert ceiling_of(sentences, words, SCHEMES["bio"]) == 1.0
    assert ceiling_of(sentences, words, SCHEMES["io"]) == pytest.approx(2 / 5)  # 1 right of 3 and 2
    assert ceiling_of(sentences[2:], words, SCHEMES["bio"]) == 0.0

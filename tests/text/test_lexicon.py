"""The word tables: which words are learnt, which are fixed, and where learning starts."""

import numpy as np
import pytest

from text.embeddings import look_up as look_up_in
from text.lexicon import make_lexicon
from text.vocab import Vocabulary

WORDS = ("the", "Screen", "wugs", "7")
VECTORS = {"the": [0.5, -1.0], "Screen": [2.0, 0.25], "keys": [1.0, 3.0]}


class FewVectors:
    """Stands for packed vectors; counts how often it is asked."""

    def __init__(self, known):
        self.known, self.dimension, self.calls = known, 2 if known else 0, 0

    def lookup(self, words):
        self.calls += 1
        rows = {word: row for row, word in enumerate(self.known)}
        table = np.array(list(self.known.values()), np.float32)
        return look_up_in("few", tuple(words), rows, table, self.dimension)


def make(trained, known=VECTORS, **changes):
    settings = {"random_size": 5, "reads_chars": False, "reads_shapes": False} | changes
    return make_lexicon(Vocabulary(WORDS), FewVectors(known), trained=trained, **settings)


def look_up(lexicon, *words):
    """(learnt rows, vectors) of words beside those of training; padding is left out."""
    tables = lexicon.tables(lexicon.look_up(Vocabulary(WORDS).extend(words)))
    real = slice(1, len(WORDS) + len(words) + 1)
    rows = tables["learnt"][real].tolist() if "learnt" in tables else None
    return rows, tables["vectors"][real].tolist()


def test_frozen_words_are_their_vectors_and_others_0():
    lexicon = make(trained=False)
    rows, vectors = look_up(lexicon, "keys", "blorp")
    assert rows is None and lexicon.learnt_words == lexicon.unread_values == 0
    assert lexicon.size == 2
    nothing = [0.0, 0.0]
    assert vectors == [VECTORS["the"], VECTORS["Screen"], nothing, nothing, [1.0, 3.0], nothing]


def test_trained_embeddings_have_a_row_for_every_training_word():
    lexicon = make(trained=True)
    rows, vectors = look_up(lexicon, "keys", "blorp", "WUGS", "THE", "9")
    assert lexicon.used_rows == 5 and lexicon.learnt_words == 512
    assert lexicon.unread_values == 507 * lexicon.size
    # keys has a vector though training never saw it; WUGS and THE are read as they were seen.
    assert rows == [1, 2, 3, 4, -1, 0, 3, 1, 0] and vectors[4] == [1.0, 3.0]


def test_a_word_with_the_vector_of_another_form_takes_its_trained_row():
    lexicon = make(trained=True, known=VECTORS | {"SCREEN": [4.0, 4.0]})
    rows, vectors = look_up(lexicon, "screen", "SCREEN", "Keys")
    assert rows[4:] == [2, -1, -1]  # SCREEN has a vector of its own, keys no trained row
    assert vectors[5:] == [[4.0, 4.0], VECTORS["keys"]]


def test_without_vectors_embeddings_are_trained():
    lexicon = make(trained=False, known={})
    assert lexicon.trained and lexicon.size == 5
    assert look_up(lexicon, "keys")[0] == [1, 2, 3, 4, 0]


def test_learning_starts_at_the_vectors():
    lexicon = make(trained=True)
    vectors = lexicon.look_up(Vocabulary(WORDS).extend(["keys"]))
    start = lexicon.first_embedding(vectors, np.random.default_rng(0))
    assert start.shape == (512, 2) and start.dtype == np.float32 and not start[5:].any()
    assert start[1].tolist() == VECTORS["the"] and start[2].tolist() == VECTORS["Screen"]
    assert (start[[0, 3, 4]] != 0).all()
    assert lexicon.vectors.calls == 1


def test_tables_are_filled_up():
    lexicon = make(trained=False, reads_chars=True, reads_shapes=True)
    tables = lexicon.tables(lexicon.look_up(Vocabulary(("Screen", "x"))))
    assert {name: len(table) for name, table in tables.items()} == dict.fromkeys(tables, 256)
    assert set(tables) == {"vectors", "chars", "shapes"}
    assert (tables["chars"][1, :6] > 1).all() and not tables["chars"][3:].any()
    assert tables["chars"][2, 0] == 1, "x is in no training word"
    assert tables["shapes"][1].any() and not tables["shapes"][0].any()


@pytest.mark.parametrize("words, rows", [(0, 256), (255, 256), (256, 512), (5000, 8192)])
def test_tables_have_few_lengths(words, rows):
    vocabulary = Vocabulary(tuple(f"w{number}" for number in range(words)))
    assert len(make(trained=False).look_up(vocabulary).words) == rows


def test_padding_is_the_unknown_word():
    lexicon = make(trained=True)
    assert lexicon.tables(lexicon.look_up(Vocabulary(WORDS)))["learnt"][0] == 0

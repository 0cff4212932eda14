"""What a run knows of words: their rows, vectors, spelling and shape, as tables on the device.

The word tables of V words, of which word 0 is padding:

    vectors  float32 [V, D]  pre-trained vectors, 0 for a word without
    learnt   int32   [V]     row of the learnt embedding, or -1: the vector is used
    chars    int32   [V, W]  characters, if the model reads them
    shapes   float32 [V, F]  how the word is written, if the model reads that

With frozen embeddings there is no `learnt`: every word is its vector. With trained ones row 0 of
the learnt embedding is the unknown word, and every training word has its own row, whose first value
is its vector. A word that training never saw has its pre-trained vector in both cases, but for one
whose vector is another form's ("Keyboard", of which only "keyboard" has one): it takes that form's
trained row.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from text.embeddings import Vectors, fallback_forms
from text.packed_vectors import PackedVectors
from text.vocab import Characters, Vocabulary, word_shapes

CHARACTERS_OF_A_WORD = 20
UNKNOWN_ROW = 0
LEARNT_ROWS = 512


@dataclass(frozen=True)
class Lexicon:
    """The words of a run and where their vectors come from.

    Attributes:
        training_words: those of the training sentences.
        characters: those of the training words.
        vectors: the pre-trained ones, of dimension 0 if there are none.
        trained: whether embeddings are trained.
        size: D, of the embedding.
        reads_chars: whether the model reads characters.
        reads_shapes: whether it reads how words are written.
    """

    training_words: Vocabulary
    characters: Characters
    vectors: PackedVectors
    trained: bool
    size: int
    reads_chars: bool
    reads_shapes: bool

    @property
    def learnt_words(self) -> int:
        """R, the rows of the learnt embedding, 0 if embeddings are frozen.

        So filled to a multiple of `LEARNT_ROWS`, that seeds, whose validation splits leave
        different words to training, share compiled programs.
        """
        used = self.used_rows
        return used if used <= 1 else -(-used // LEARNT_ROWS) * LEARNT_ROWS

    @property
    def used_rows(self) -> int:
        """The rows of the learnt embedding that stand for words; the others are never read."""
        return 1 + len(self.training_words) if self.trained else 0

    @property
    def unread_values(self) -> int:
        """How many numbers the learnt embedding is filled with."""
        return (self.learnt_words - self.used_rows) * self.size

    def look_up(self, vocabulary: Vocabulary) -> Vectors:
        """The vectors of padding and a vocabulary, filled up with words that are not there.

        The tables are so filled to a power of two, that texts and splits of a corpus share
        compiled programs. Without pre-trained vectors, zeros of which none is found.
        """
        words = ("", *vocabulary.words)
        words += ("",) * ((1 << max(len(words) - 1, 255).bit_length()) - len(words))
        if self.vectors.dimension:
            return self.vectors.lookup(words)
        zeros = np.zeros((len(words), self.size), np.float32)
        none = np.zeros(len(words), bool)
        return Vectors("random", words, zeros, none, none)

    def tables(self, vectors: Vectors) -> dict[str, np.ndarray]:
        """The word tables of what was looked up."""
        tables = {"vectors": vectors.matrix}
        if self.trained:
            tables["learnt"] = self._learnt_rows(vectors)
        if self.reads_chars:
            tables["chars"] = self.characters.encode(vectors.words, CHARACTERS_OF_A_WORD)
        if self.reads_shapes:
            tables["shapes"] = word_shapes(vectors.words)
        return tables

    def first_embedding(self, vectors: Vectors, rng: np.random.Generator) -> np.ndarray:
        """The learnt embedding before training, float32 [R, D].

        Words with a vector start there; the unknown one and others are normal, with the
        deviation of the vectors (0.1 without any).

        Args:
            vectors: looked up, of a vocabulary that begins with the training words.
            rng: draws the others.
        """
        own = slice(self.used_rows)  # not those of other splits
        matrix, found = vectors.matrix[own], vectors.found[own]
        deviation = matrix[found].std() if found.any() else 0.1
        noise = rng.normal(scale=deviation, size=matrix.shape).astype(np.float32)
        first = np.where(found[:, None], matrix, noise)
        return np.pad(first, ((0, self.learnt_words - self.used_rows), (0, 0)))

    def _learnt_rows(self, vectors: Vectors) -> np.ndarray:
        rows = np.where(vectors.found, -1, UNKNOWN_ROW).astype(np.int32)
        for place, word in enumerate(vectors.words):
            forms = (word,) if vectors.exact[place] else fallback_forms(word)
            known = (self._training_rows[form] for form in forms if form in self._training_rows)
            rows[place] = next(known, rows[place])
        return rows

    @cached_property
    def _training_rows(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.training_words.words, 1)}

    def to_json(self) -> dict[str, Any]:
        """What `inputs.json` keeps of it."""
        return {
            "words": self.training_words.to_json(),
            "characters": self.characters.to_json(),
        }


def make_lexicon(
    training_words: Vocabulary,
    vectors: PackedVectors,
    *,
    trained: bool,
    random_size: int,
    reads_chars: bool,
    reads_shapes: bool,
    characters: Characters | None = None,
) -> Lexicon:
    """The lexicon of a run; without vectors its embedding is random, trained, of `random_size`."""
    return Lexicon(
        training_words=training_words,
        characters=characters or Characters.build(training_words.words),
        vectors=vectors,
        trained=trained or not vectors.dimension,
        size=vectors.dimension or random_size,
        reads_chars=reads_chars,
        reads_shapes=reads_shapes,
    )

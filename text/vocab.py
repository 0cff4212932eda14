"""The words and characters a model knows, by number, and what shows in how a word is written.

words       0 padding, then the vocabulary in its order
characters  0 padding, 1 unknown, then the characters of the training words
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.errors import InputError

UNKNOWN_CHARACTER = 1

# The columns of `word_shapes`. The first four exclude each other; a word without upper and
# lower case (a number, Chinese) has none of them.
SHAPES = (
    "lower",  # screen
    "capitalised",  # Screen, I
    "upper",  # HDMI, USB3
    "mixed",  # iPhone
    "has digit",  # 2.4Ghz
    "number",  # 1,000: digits, no letters
    "symbols",  # ... neither letters nor digits
    "joined",  # wi-fi, don't: letters or digits, and symbols
)


def _by_frequency(items: Iterable[str]) -> tuple[str, ...]:
    """Distinct items, the most frequent first, equally frequent ones by code point."""
    counts = Counter(items)
    return tuple(sorted(counts, key=lambda item: (-counts[item], item)))


def _check_distinct(items: Sequence[str], what: str) -> None:
    """Raise InputError unless every item is a text of its own; a repeat would shift the rows."""
    if not all(isinstance(item, str) and item for item in items):
        raise InputError(f"the {what} hold something that is not a text: the file is damaged")
    repeated = [item for item, count in Counter(items).items() if count > 1]
    if repeated:
        raise InputError(f"the {what} hold {repeated[0]!r} twice: the file is damaged")


def _listed(items: list[str], what: str) -> tuple[str, ...]:
    if not isinstance(items, list):
        raise InputError(f"the {what} are no list: the file is damaged")
    return tuple(items)


@dataclass(frozen=True)
class Vocabulary:
    """Words and their rows in an embedding matrix, [len(words) + 1, D]; row 0 is padding.

    Attributes:
        words: as they are written, case kept, distinct; words[i] has row i + 1.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_distinct(self.words, "words of the vocabulary")

    @classmethod
    def build(cls, sentences: Iterable[Sequence[str]]) -> "Vocabulary":
        """The words of tokenised sentences, by frequency, then by code point."""
        return cls(_by_frequency(token for tokens in sentences for token in tokens))

    @classmethod
    def from_json(cls, words: list[str]) -> "Vocabulary":
        """The vocabulary that `to_json` listed; InputError for a repeated or empty word."""
        return cls(_listed(words, "words of the vocabulary"))

    def to_json(self) -> list[str]:
        """The words in order."""
        return list(self.words)

    def __len__(self) -> int:
        """How many words there are, padding not counted."""
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._rows

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.words, 1)}

    def extend(self, words: Iterable[str]) -> "Vocabulary":
        """A vocabulary with the unseen ones of `words` appended, in order of appearance."""
        unseen = dict.fromkeys(word for word in words if word not in self._rows)
        return Vocabulary((*self.words, *unseen))

    def rows(self, tokens: Sequence[str]) -> np.ndarray:
        """The rows of `tokens`, int32 [T]; KeyError for a word that is not here: extend first."""
        return np.array([self._rows[token] for token in tokens], np.int32)


@dataclass(frozen=True)
class Characters:
    """The characters of the training words; characters[i] has number i + 2."""

    characters: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_distinct(self.characters, "characters")

    @classmethod
    def build(cls, words: Iterable[str]) -> "Characters":
        """The characters of `words`, by frequency, then by code point."""
        return cls(_by_frequency(character for word in words for character in word))

    @classmethod
    def from_json(cls, characters: list[str]) -> "Characters":
        """The inventory that `to_json` listed; InputError for a repeated or empty character."""
        return cls(_listed(characters, "characters"))

    def to_json(self) -> list[str]:
        """The characters in order."""
        return list(self.characters)

    def __len__(self) -> int:
        """How many numbers there are, padding and unknown counted."""
        return len(self.characters) + UNKNOWN_CHARACTER + 1

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {
            character: number
            for number, character in enumerate(self.characters, UNKNOWN_CHARACTER + 1)
        }

    def encode(self, words: Sequence[str], width: int) -> np.ndarray:
        """Spell words in numbers, padded with 0 on the right.

        Args:
            words: V of them; "" becomes padding alone.
            width: W, at least 2. Of a longer word the first W - W // 2 and the last W // 2
                characters are kept, since prefixes and suffixes tell most.

        Returns:
            int32 [V, W].
        """
        encoded = np.zeros((len(words), width), np.int32)
        tail = width // 2
        for row, word in enumerate(words):
            if len(word) > width:
                word = word[: width - tail] + word[-tail:]
            encoded[row, : len(word)] = [self._numbers.get(c, UNKNOWN_CHARACTER) for c in word]
        return encoded


def _shape(word: str) -> tuple[bool, ...]:
    """The columns SHAPES of one word."""
    cased = [character for character in word if character.isupper() or character.islower()]
    lower = word.islower()
    capitalised = word[:1].isupper() and not any(character.isupper() for character in word[1:])
    upper = word.isupper() and not capitalised
    digit = any(character.isdigit() for character in word)
    letter = any(character.isalpha() for character in word)
    symbol = any(not character.isalnum() for character in word)
    return (
        lower,
        capitalised,
        upper,
        bool(cased) and not (lower or capitalised or upper),
        digit,
        digit and not letter,
        symbol and not (digit or letter),
        symbol and (digit or letter),
    )


def word_shapes(words: Sequence[str]) -> np.ndarray:
    """What shows in how each word is written: float32 [V, len(SHAPES)] of 0 and 1.

    The padding word "" has zeros only.
    """
    shapes = [_shape(word) for word in words]
    return np.array(shapes, np.float32).reshape(len(words), len(SHAPES))

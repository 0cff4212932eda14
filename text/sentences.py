"""What every corpus becomes: sentences with the character spans of their terms."""

from dataclasses import dataclass
from typing import NamedTuple


class Span(NamedTuple):
    """Characters `text[start:end]`."""

    start: int
    end: int


@dataclass(frozen=True)
class Sentence:
    """One sentence of a corpus.

    Attributes:
        id: unique in its file.
        text: as it was written, never stripped, since offsets count its characters.
        spans: the aspect terms, distinct, sorted by (start, end); they may overlap.
    """

    id: str
    text: str
    spans: tuple[Span, ...] = ()

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms as they are written, distinct, in order of appearance."""
        return tuple(dict.fromkeys(self.text[start:end] for start, end in self.spans))

"""What a reader of corpus files returns, and what it does with offsets that are wrong."""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from common.errors import InputError
from text.sentences import Sentence, Span

Log = Callable[[str], None]
SHOWN = 100  # characters of a term that a message shows


class Reading(NamedTuple):
    """The sentences of a file, and how many of its terms were moved or left out."""

    sentences: tuple[Sentence, ...]
    repaired: int = 0
    skipped: int = 0


class Term(NamedTuple):
    """A term as a file gives it: each part may be missing, and the offsets wrong."""

    line: int
    start: int | None
    end: int | None
    term: str | None = None


class Collector:
    """Gathers the sentences of a file, placing their terms and reporting each wrong one."""

    def __init__(self, name: str, log: Log):
        self._name = name
        self._log = log
        self._sentences: dict[str, Sentence] = {}
        self._repaired = 0
        self._skipped = 0

    def add(self, line: int, id: str | None, text: str, terms: Iterable[Term] = ()) -> None:
        """Add a sentence; without an id it gets its number in the file, from 1.

        Raises:
            InputError: another sentence has this id.
        """
        id = str(len(self._sentences) + 1) if id is None else id
        if id in self._sentences:
            raise InputError(
                f"{self._name}, line {line}: the id {id} is that of an earlier sentence too: "
                "give each its own"
            )
        placed = [self._place(id, text, term) for term in terms]
        spans = sorted({span for span in placed if span})
        self._sentences[id] = Sentence(id, text, tuple(spans))

    def _place(self, id: str, text: str, term: Term) -> Span | None:
        span = place(text, term)
        if span == (term.start, term.end):
            return span
        self._repaired += span is not None
        self._skipped += span is None
        action = f"moved to {span.start} to {span.end}" if span else "skipped"
        where = f"{self._name}, line {term.line}, sentence {id}"
        self._log(f"{where}: {_describe_misplaced(term, len(text))}: {action}")
        return span

    def reading(self) -> Reading:
        """What was gathered."""
        return Reading(tuple(self._sentences.values()), self._repaired, self._skipped)


def _describe_misplaced(term: Term, length: int) -> str:
    """What is wrong with a term in a text of so many characters."""
    written = _short(repr(term.term))
    if term.start is None or term.end is None:
        return f"the term {written} lacks whole numbers as its offsets"
    where = f"{_short(str(term.start))} to {_short(str(term.end))}"
    if term.term is None:
        return f"no term can be at {where} of {length} characters"
    return f"the term {written} is not at {where}"


def _short(text: str) -> str:
    """For a message: what a damaged file holds there may be of any length."""
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def place(text: str, term: Term) -> Span | None:
    """Where in `text` a term is: at its offsets, else at its occurrence nearest to them.

    White space of any kind is equal here, since XML attributes do not keep it. None if the
    text does not hold the term, or holds it more than once and there is no offset to go by.
    """
    _, start, end, written = term
    if start is not None and end is not None and 0 <= start < end <= len(text):
        if written is None or written.split() == text[start:end].split():
            return Span(start, end)
    if not written:
        return None
    places = [match.start() for match in re.finditer(re.escape(written), text)]
    if not places or (start is None and len(places) > 1):
        return None
    first = min(places, key=lambda place: abs(place - (start or 0)))
    return Span(first, first + len(written))

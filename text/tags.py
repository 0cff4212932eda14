"""Tag schemes: terms as one tag per token, and back.

Reading tags is lenient, as seqeval is by default: I after O starts a term, and no sequence is
refused, so that every model can be scored, with or without a CRF that forbids the ill-formed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from text.crf import CRFParams
from text.scoring import exact_counts
from text.sentences import Sentence, Span

OUTSIDE = "O"


def term_ranges(tags: Iterable[str]) -> list[tuple[int, int]]:
    """The terms that tags such as O, B, I-ASP mark, as token ranges [first, last).

    B and S (or U) start a term, E (or L) and S (or U) end it. I, E and L continue the term
    before them if that has not ended and is of their type; otherwise they start one.
    """
    ranges: list[tuple[int, int]] = []
    open_type = None  # the type of the term that the next token may continue
    for n, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix != OUTSIDE:
            continues = prefix in "IEL" and kind == open_type
            first = ranges.pop()[0] if continues else n
            ranges.append((first, n + 1))
        open_type = kind if prefix in "BI" else None
    return ranges


def spans_at(tokens: Sequence[Span], ranges: Iterable[tuple[int, int]]) -> tuple[Span, ...]:
    """The characters of each range [first, last) of tokens."""
    return tuple(Span(tokens[first].start, tokens[last - 1].end) for first, last in ranges)


@dataclass(frozen=True)
class TagScheme:
    """A way to mark terms by a tag per token.

    Attributes:
        name: its key in SCHEMES.
        tags: tag k is written tags[k]; tags[0] is O.
        term: the tag of a term's only token, and of the first, each inner and the last token
            of a longer term.
    """

    name: str
    tags: tuple[str, ...]
    term: tuple[str, str, str, str]

    def encode(self, tokens: Sequence[Span], spans: Sequence[Span]) -> list[int]:
        """The tag of each token.

        A span marks every token that it overlaps, so one that cuts a token grows to the whole
        token. Of spans that share a token the longest is kept, then the first.
        """
        ranges: list[tuple[int, int]] = []
        taken: set[int] = set()
        for start, end in sorted(spans, key=lambda span: (span.start - span.end, span.start)):
            inside = [
                n for n, token in enumerate(tokens) if token.start < end and start < token.end
            ]
            if inside and taken.isdisjoint(inside):
                taken.update(inside)
                ranges.append((inside[0], inside[-1] + 1))
        return self.encode_ranges(len(tokens), ranges).tolist()

    def encode_ranges(self, length: int, ranges: Sequence[tuple[int, int]]) -> np.ndarray:
        """The tags, int32 [length], of terms at tokens [first, last) that share no token."""
        tags = np.zeros(length, np.int32)
        for start, stop in ranges:
            tags[start:stop] = [self.tags.index(mark) for mark in self._marks(stop - start)]
        return tags

    def _marks(self, length: int) -> list[str]:
        """The tags of a term of that many tokens."""
        only, first, inner, last = self.term
        return [only] if length == 1 else [first, *inner * (length - 2), last]

    def decode_ranges(self, tags: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
        """The terms as token ranges [first, last), in order; see `term_ranges`."""
        return term_ranges(self.tags[tag] for tag in tags)

    def decode(self, tokens: Sequence[Span], tags: Sequence[int] | np.ndarray) -> tuple[Span, ...]:
        """The terms as spans of characters, in order, from `tags`, one for each token."""
        if len(tokens) != len(tags):
            raise ValueError(f"{len(tokens)} tokens need as many tags, got {len(tags)}")
        return spans_at(tokens, self.decode_ranges(tags))

    def taggings_with(self, length: int, start: int, stop: int) -> np.ndarray:
        """Which tags a term at tokens [start, stop), and no longer one, leaves possible.

        Returns:
            bool [length, K]. With `allowed`, the taggings that choose among them at every token
            are those whose `decode_ranges` has this term.
        """
        _, first, inner, last = self.term
        possible = np.ones((length, len(self.tags)), bool)
        marks = self._marks(stop - start)
        possible[start:stop] = [[tag == mark for tag in self.tags] for mark in marks]
        if stop < length:
            possible[stop] = [tag not in (inner, last) for tag in self.tags]
        if start and first in (inner, last):  # io: a term before this one would be part of it
            possible[start - 1] = [tag not in (first, inner) for tag in self.tags]
        return possible

    def allowed(self) -> CRFParams:
        """What `encode` can give: bool transitions [K, K], row to column, start [K], end [K]."""
        only, first, inner, last = self.term
        starts, ends = {OUTSIDE, only, first}, {OUTSIDE, only, last}
        pairs = {(a, b) for a in ends for b in starts}
        pairs |= {(a, b) for a in (first, inner) for b in (inner, last)}
        return CRFParams(
            transitions=np.array([[(a, b) in pairs for b in self.tags] for a in self.tags]),
            start=np.array([tag in starts for tag in self.tags]),
            end=np.array([tag in ends for tag in self.tags]),
        )


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        TagScheme("bio", ("O", "B", "I"), ("B", "B", "I", "I")),
        TagScheme("bioes", ("O", "B", "I", "E", "S"), ("S", "B", "I", "E")),
        # Report B's two classes: terms without a token between them become one.
        TagScheme("io", ("O", "I"), ("I", "I", "I", "I")),
    )
}


def ceiling(
    sentences: Sequence[Sentence], tokens: Sequence[Sequence[Span]], scheme: TagScheme
) -> float:
    """The exact-span F1 of perfect tags: what tokens and tags cannot express is lost.

    Args:
        sentences: with their gold terms.
        tokens: those of each sentence.
        scheme: of the tags.

    Returns:
        In [0, 1]; 0 for sentences without terms, as every score of nothing.
    """
    pairs = zip(sentences, tokens, strict=True)
    found = [scheme.decode(row, scheme.encode(row, sentence.spans)) for sentence, row in pairs]
    return exact_counts([sentence.spans for sentence in sentences], found).f1

"""What a term extractor got wrong, for reading: `errors.md`."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from text.scoring import Counts
from text.sentences import Sentence, Span

MOST_FREQUENT = 10


@dataclass(frozen=True)
class Errors:
    """The terms of one sentence, sorted by outcome.

    Every true span is in `right` or `missed` or the first of a pair, every predicted one in
    `right` or `spurious` or the second of a pair, each in one of the three only.

    Attributes:
        right: spans both true and predicted.
        missed: true spans that were not found and that no wrong prediction overlaps.
        spurious: predicted spans that are wrong and overlap no true one that was not found.
        misbounded: (true, predicted) that overlap; a span is in several pairs if it overlaps
            several, as one long prediction over two terms does.
    """

    right: tuple[Span, ...]
    missed: tuple[Span, ...]
    spurious: tuple[Span, ...]
    misbounded: tuple[tuple[Span, Span], ...]

    @property
    def misbounded_gold(self) -> tuple[Span, ...]:
        """The true spans of the pairs, distinct."""
        return tuple(dict.fromkeys(true for true, _ in self.misbounded))

    @property
    def misbounded_predicted(self) -> tuple[Span, ...]:
        """The predicted spans of the pairs, distinct."""
        return tuple(dict.fromkeys(found for _, found in self.misbounded))


def classify_errors(gold: Iterable[Span], predicted: Iterable[Span]) -> Errors:
    """Sort the spans of one sentence by outcome; equal spans count once.

    Equal bounds are settled first, so a right prediction explains no other error.
    """
    truth, found = set(gold), set(predicted)
    lost, wrong = sorted(truth - found), sorted(found - truth)
    pairs = tuple((a, b) for a in lost for b in wrong if a[0] < b[1] and b[0] < a[1])
    paired = {span for pair in pairs for span in pair}
    return Errors(
        right=tuple(sorted(truth & found)),
        missed=tuple(span for span in lost if span not in paired),
        spurious=tuple(span for span in wrong if span not in paired),
        misbounded=pairs,
    )


def write_errors(
    path: str | os.PathLike,
    sentences: Sequence[Sentence],
    predicted: Sequence[Sequence[Span]],
) -> None:
    """Write the missed, spurious and mis-bounded terms with their sentences, as Markdown.

    Args:
        path: the file to write.
        sentences: the text and the true spans.
        predicted: the spans found in each, in the same order.

    Raises:
        ValueError: sentences and predicted differ in number.
    """
    rows = [
        (sentence, classify_errors(sentence.spans, spans))
        for sentence, spans in zip(sentences, predicted, strict=True)
    ]
    missed, spurious = _total(rows, "missed"), _total(rows, "spurious")
    gold, found = _total(rows, "misbounded_gold"), _total(rows, "misbounded_predicted")
    parts = [
        _summary(rows),
        _section(
            f"Missed ({missed})",
            "missed",
            [(sentence, _quote(sentence, errors.missed)) for sentence, errors in rows],
        ),
        _section(
            f"Spurious ({spurious})",
            "spurious",
            [(sentence, _quote(sentence, errors.spurious)) for sentence, errors in rows],
        ),
        _section(
            f"Mis-bounded ({gold} true, {found} predicted)",
            "mis-bounded",
            [(sentence, _quote_pairs(sentence, errors.misbounded)) for sentence, errors in rows],
        ),
    ]
    Path(path).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _total(rows: Sequence[tuple[Sentence, Errors]], name: str) -> int:
    return sum(len(getattr(errors, name)) for _, errors in rows)


def _summary(rows: Sequence[tuple[Sentence, Errors]]) -> str:
    right, missed, spurious = (_total(rows, name) for name in ("right", "missed", "spurious"))
    gold, found = _total(rows, "misbounded_gold"), _total(rows, "misbounded_predicted")
    counts = Counts(right + missed + gold, right + spurious + found, right)
    frequent = Counter(
        term.lower() for sentence, errors in rows for term in _quote(sentence, errors.missed)
    ).most_common(MOST_FREQUENT)
    listed = ", ".join(f"{term} ({times})" for term, times in frequent) or "none"
    return f"""# Errors

{len(rows)} sentences, {counts.gold} true terms: {right} found, {missed} missed, \
{gold} mis-bounded. {counts.found} predicted terms: {right} right, {spurious} spurious, \
{found} mis-bounded. Exact spans: precision {counts.precision:.4f}, recall {counts.recall:.4f}, \
F1 {counts.f1:.4f}.

Missed most often, capitals aside: {listed}.

Each sentence follows its identifier, the true terms in backticks; terms that overlap or touch \
share one pair. Mis-bounded terms overlap a prediction with other bounds."""


def _section(heading: str, label: str, terms: Sequence[tuple[Sentence, list[str]]]) -> str:
    """A heading and an entry for each sentence that has such terms."""
    entries = [
        f"- {_as_code(sentence.id)}: {_mark(sentence)}\n  - {label}: {', '.join(listed)}"
        for sentence, listed in terms
        if listed
    ]
    return f"## {heading}\n\n" + ("\n".join(entries) or "None.")


def _quote(sentence: Sentence, spans: Iterable[Span]) -> list[str]:
    text = _flatten(sentence.text)
    return [_as_code(text[start:end]) for start, end in spans]


def _quote_pairs(sentence: Sentence, pairs: Iterable[tuple[Span, Span]]) -> list[str]:
    return [" predicted as ".join(_quote(sentence, pair)) for pair in pairs]


def _mark(sentence: Sentence) -> str:
    """The sentence in one line of Markdown, stripped, its true terms as code."""
    text = _flatten(sentence.text)
    marked, done = "", 0
    for start, end in _unite(sentence.spans):
        marked += _escape(text[done:start]) + _as_code(text[start:end])
        done = end
    return (marked + _escape(text[done:])).strip()


def _unite(spans: Iterable[Span]) -> list[Span]:
    """Spans that overlap or touch as one, since code cannot stand beside code in Markdown."""
    united: list[Span] = []
    for start, end in sorted(spans):
        if united and start <= united[-1].end:
            united[-1] = Span(united[-1].start, max(end, united[-1].end))
        else:
            united.append(Span(start, end))
    return united


def _flatten(text: str) -> str:
    """`text` in one line and as long, so that offsets stay."""
    return re.sub(r"\s", " ", text)


def _as_code(term: str) -> str:
    """A code span: unlike bold letters, it needs no space or word boundary around it."""
    if "`" not in term:
        return f"`{term}`"
    fence = "`" * (max(map(len, re.findall("`+", term))) + 1)
    return f"{fence} {term} {fence}"


def _escape(text: str) -> str:
    """`text` with a backslash where Markdown would read more than the character.

    No line begins with the text, so marks that mean something only there need none.
    """
    return re.sub(r"([\\`*_\[\]<~]|&(?=#?\w+;))", r"\\\1", text)

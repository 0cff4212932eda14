"""Scores of a term extractor, on the host. Each number is named for the scorer that made it.

    exact     a term is right if both its bounds are; the measure of SemEval
    token     a token is right if truth and prediction both put it inside some term
    keyword   a string is right if the truth has it anywhere in the same sentence

The token score gives part of the credit for half a term and none for telling adjacent terms
apart; the keyword score forgives a wrong place and counts a repeated term once. So a number of
one scorer may not be compared with a number of another. None of them sees padding.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from text.sentences import Sentence, Span

OUTSIDE = 0  # the tag of a token in no term, in every tagging scheme

TagRows = Sequence[Sequence[int] | np.ndarray]  # one row per sentence, as long as the sentence


@dataclass(frozen=True)
class Counts:
    """What a scorer counted; an undefined ratio (nothing found, nothing to find) is 0.

    Attributes:
        gold: items in the truth.
        found: items predicted.
        right: items in both.
    """

    gold: int = 0
    found: int = 0
    right: int = 0

    def __add__(self, other: Self) -> "Counts":
        return Counts(self.gold + other.gold, self.found + other.found, self.right + other.right)

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        total = self.gold + self.found
        return 2 * self.right / total if total else 0.0


def exact_counts(gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]]) -> Counts:
    """Counts of distinct (start, end) in each sentence.

    Terms that the tokens cannot express, or that were cut off, stay in `gold`, so that scores
    do not depend on the tokeniser or on the maximum length. On the spans that `text.tags` reads
    from B and I it equals seqeval's default; on spans that begin at a B only, its strict mode.

    Args:
        gold: the spans of each sentence.
        predicted: the spans found in each, in the same order.

    Raises:
        ValueError: the two have different numbers of sentences.

    Source: Pontiki et al. 2014, SemEval-2014 Task 4, subtask 1.
    """
    return _count_common(gold, predicted)


def keyword_counts(sentences: Sequence[Sentence], predicted: Sequence[Sequence[Span]]) -> Counts:
    """Counts of distinct strings in each sentence, compared as they are written.

    Unlike `exact_counts`, a term named twice counts once, and its place does not matter.

    Args:
        sentences: the text and the true spans.
        predicted: the spans found in each, in the same order.

    Raises:
        ValueError: the two have different numbers of sentences.

    Source: report A scores the set of keywords of a sentence.
    """
    found = [
        [sentence.text[start:end] for start, end in spans]
        for sentence, spans in zip(sentences, predicted, strict=True)
    ]
    return _count_common([sentence.terms for sentence in sentences], found)


def _count_common(
    gold: Iterable[Iterable[Hashable]], predicted: Iterable[Iterable[Hashable]]
) -> Counts:
    total = Counts()
    for truth, found in ((set(g), set(p)) for g, p in zip(gold, predicted, strict=True)):
        total += Counts(len(truth), len(found), len(truth & found))
    return total


def token_counts(gold_tags: TagRows, predicted_tags: TagRows) -> Counts:
    """Counts of tokens whose tag is not O; which other tag it is does not matter.

    Args:
        gold_tags: integers, a row per sentence without padding; 0 is O.
        predicted_tags: the same for the prediction.

    Raises:
        ValueError: the sentences differ in number or length.

    Source: report B's F1, without the padding that it counted.
    """
    gold, predicted = _join(gold_tags, predicted_tags)
    inside, claimed = gold != OUTSIDE, predicted != OUTSIDE
    return Counts(int(inside.sum()), int(claimed.sum()), int((inside & claimed).sum()))


def tag_confusion(gold_tags: TagRows, predicted_tags: TagRows, num_tags: int) -> np.ndarray:
    """Counts of tokens, int64 [K, K]: row is the truth, column the prediction.

    Args:
        gold_tags: integers in [0, K), a row per sentence without padding.
        predicted_tags: the same for the prediction.
        num_tags: K.

    Raises:
        ValueError: the sentences differ in number or length, or a tag is not in [0, K).
    """
    gold, predicted = _join(gold_tags, predicted_tags)
    for tags in (gold, predicted):
        if len(tags) and not 0 <= tags.min() <= tags.max() < num_tags:
            raise ValueError(f"tags {tags.min()} to {tags.max()} are not in [0, {num_tags})")
    cells = np.bincount(gold * num_tags + predicted, minlength=num_tags**2)
    return cells.reshape(num_tags, num_tags)


def _join(gold_tags: TagRows, predicted_tags: TagRows) -> tuple[np.ndarray, np.ndarray]:
    """All tokens of both in one row each, int64 [tokens]."""
    lengths = [len(row) for row in gold_tags], [len(row) for row in predicted_tags]
    if len(lengths[0]) != len(lengths[1]):
        raise ValueError(f"{len(lengths[0])} sentences of true tags, {len(lengths[1])} predicted")
    for index, (true, predicted) in enumerate(zip(*lengths, strict=True)):
        if true != predicted:
            raise ValueError(f"sentence {index} has {true} true tags, {predicted} predicted")
    nothing = np.empty(0, np.int64)  # concatenate refuses an empty list
    gold, found = (
        np.concatenate([nothing, *(np.asarray(row, np.int64) for row in rows)])
        for rows in (gold_tags, predicted_tags)
    )
    return gold, found


def scores(
    sentences: Sequence[Sentence],
    predicted: Sequence[Sequence[Span]],
    gold_tags: TagRows,
    predicted_tags: TagRows,
    prefix: str,
) -> dict[str, float]:
    """Precision, recall and F1 of all three scorers.

    Args:
        sentences: the text and the true spans.
        predicted: the spans found in each sentence.
        gold_tags: integers, a row per sentence without padding; 0 is O.
        predicted_tags: the same for the prediction.
        prefix: of the names, such as `test`.

    Returns:
        `prefix/SCORER_RATIO` for each SCORER in exact, token, keyword and each RATIO in
        precision, recall, f1; in [0, 1].

    Raises:
        ValueError: the arguments differ in the number or length of sentences.
    """
    if len(sentences) != len(gold_tags):
        raise ValueError(f"{len(sentences)} sentences, {len(gold_tags)} rows of tags")
    counts = _all_counts(sentences, predicted, gold_tags, predicted_tags)
    return {
        f"{prefix}/{scorer}_{ratio}": getattr(count, ratio)
        for scorer, count in counts.items()
        for ratio in ("precision", "recall", "f1")
    }


def sentence_counts(
    sentences: Sequence[Sentence],
    predicted: Sequence[Sequence[Span]],
    gold_tags: TagRows,
    predicted_tags: TagRows,
) -> dict[str, np.ndarray]:
    """Counts of every sentence by itself, for comparing taggers sentence by sentence.

    Args as of `scores`.

    Returns:
        For each of exact_f1, token_f1 and keyword_f1, int32 [sentences, 3]: gold, found, right.
    """
    rows: dict[str, list[tuple[int, int, int]]] = {"exact": [], "token": [], "keyword": []}
    for sentence, spans, gold, found in zip(
        sentences, predicted, gold_tags, predicted_tags, strict=True
    ):
        for scorer, count in _all_counts([sentence], [spans], [gold], [found]).items():
            rows[scorer].append((count.gold, count.found, count.right))
    return {
        f"{scorer}_f1": np.array(counts, np.int32).reshape(-1, 3) for scorer, counts in rows.items()
    }


def padded_accuracy(counts: Mapping[str, np.ndarray], length: int = 100) -> dict[str, float]:
    """Token accuracy with every sentence filled to `length`, and padding counted as right.

    Report B's measure, which no tagger can fail: to show what its numbers are worth.

    Args:
        counts: of `sentence_counts`.
        length: tokens.

    Returns:
        `padded/accuracy`, and `padded/nothing`, that of a tagger that finds no term.
    """
    gold, found, right = counts["token_f1"].sum(axis=0)
    places = length * len(counts["token_f1"])
    return {
        "padded/accuracy": 1 - (gold + found - 2 * right) / places,
        "padded/nothing": 1 - gold / places,
    }


def _all_counts(
    sentences: Sequence[Sentence],
    predicted: Sequence[Sequence[Span]],
    gold_tags: TagRows,
    predicted_tags: TagRows,
) -> dict[str, Counts]:
    return {
        "exact": exact_counts([sentence.spans for sentence in sentences], predicted),
        "token": token_counts(gold_tags, predicted_tags),
        "keyword": keyword_counts(sentences, predicted),
    }

"""What a run shows: facts of its corpus, scores, pictures, predictions, lines on the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import plots
from common.writer import say
from text import pictures, scoring
from text.config import TextConfig
from text.crf import CRFParams
from text.error_report import write_errors
from text.extractor import Extractor, Tokenized
from text.semeval import write_predictions
from text.sentences import Sentence, Span
from text.tags import TagScheme, ceiling

SCORERS = {
    "exact": "exact span (official)",
    "token": "token, without padding",
    "keyword": "distinct keyword of a sentence",
}


def facts(scheme: TagScheme, split: Tokenized) -> dict[str, Any]:
    """Of a split: sentences, spans, and the tokens' ceiling, the F1 of its gold tags."""
    return {
        "sentences": len(split.sentences),
        "spans": sum(len(sentence.spans) for sentence in split.sentences),
        "ceiling": ceiling(split.sentences, split.tokens, scheme),
    }


def tell_facts(name: str, facts: dict[str, Any], config: TextConfig) -> None:
    """Print the facts of a split in a line."""
    line = f"  {name:<5} {facts['sentences']:>6,} sentences  {facts['spans']:>6,} terms"
    if facts["spans"]:
        line += f"  ceiling of {config.tokenizer} and {config.tags}: F1 {facts['ceiling']:.4f}"
    say(line)


def predicted_spans(
    scheme: TagScheme, split: Tokenized, tags: Sequence[np.ndarray]
) -> list[tuple[Span, ...]]:
    """The terms that predicted tags mark, as characters."""
    return [scheme.decode(tokens, row) for tokens, row in zip(split.tokens, tags, strict=True)]


def score(
    scheme: TagScheme, split: Tokenized, tags: Sequence[np.ndarray], prefix: str
) -> dict[str, float]:
    """All scores of predicted tags; see `scoring.scores`."""
    spans = predicted_spans(scheme, split, tags)
    return scoring.scores(split.sentences, spans, split.tags, tags, prefix)


def sentence_counts(
    scheme: TagScheme, split: Tokenized, tags: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """What predicted tags got right in each sentence; see `scoring.sentence_counts`."""
    spans = predicted_spans(scheme, split, tags)
    return scoring.sentence_counts(split.sentences, spans, split.tags, tags)


def draw(workdir: Path, config: TextConfig, history: list[dict[str, Any]], best_epoch: int) -> None:
    """Write the curves of a run; say where these and what `show_test` wrote are."""
    plots.plot_curves(
        workdir / "curves.png",
        history,
        metrics=(("loss", "loss per sentence"), ("exact_f1", "exact-span F1")),
        best_epoch=best_epoch,
        title=f"{config.model}, {config.config}",
    )
    names = ["curves.png", "tag_confusion.png", *(["transitions.png"] if config.crf else [])]
    say(f"pictures: {', '.join(str(workdir / name) for name in names)}")
    say(f"predictions.xml, errors.md and everything else: {workdir}")


def show_test(
    workdir: Path,
    config: TextConfig,
    extractor: Extractor,
    test: Tokenized,
    tags: Sequence[np.ndarray],
    transitions: CRFParams,
) -> None:
    """Write what was predicted of the test split: predictions.xml, errors.md and pictures.

    Args:
        workdir: the run folder.
        config: of the run.
        extractor: of the run.
        test: the test split.
        tags: those predicted, int32 [T] of each sentence.
        transitions: of the selected weights.
    """
    spans = predicted_spans(extractor.scheme, test, tags)
    pairs = zip(test.sentences, spans, strict=True)
    write_predictions(
        workdir / "predictions.xml", [Sentence(s.id, s.text, found) for s, found in pairs]
    )
    write_errors(workdir / "errors.md", test.sentences, spans)
    title, names = f"{config.model}, {config.config}", extractor.scheme.tags
    counts = scoring.tag_confusion(test.tags, tags, len(names))
    plots.plot_confusion(workdir / "tag_confusion.png", counts, names, title=title)
    if config.crf:
        pictures.plot_transitions(
            workdir / "transitions.png", *transitions, names, allowed=extractor.allowed, title=title
        )


def tell_scores(scores: dict[str, Any], prefix: str, decode: str) -> None:
    """Print precision, recall and F1 of every scorer, and how terms were decoded."""
    heading = f"{prefix}, --decode={decode}"
    say(f"\n{heading:<32} precision  recall      F1")
    for scorer, words in SCORERS.items():
        numbers = (scores[f"{prefix}/{scorer}_{ratio}"] for ratio in ("precision", "recall", "f1"))
        say(f"{words:<32} " + "  ".join(f"{number:>8.4f}" for number in numbers))


def tell(config: TextConfig, summary: dict[str, Any]) -> None:
    """Print the scores."""
    for prefix in ("val", "test"):
        if f"{prefix}/exact_f1" in summary:
            # `validate` in text/train.py takes best paths, whatever is asked for.
            tell_scores(summary, prefix, "path" if prefix == "val" else config.decode)
    say(
        f"\nepoch {summary['best_epoch']} of {summary['epochs']}; "
        f"{summary['sentences_per_second']:.0f} sentences/s, "
        f"{summary['seconds']:.0f} s of training steps"
    )

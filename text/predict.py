"""`--mode=predict`: the terms of anyone's text, from a run folder alone."""

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import check_range
from common.errors import InputError
from common.writer import say, warn
from text import conll, corpus_files, decoding, highlight, semeval
from text.evaluate import Ensemble
from text.sentences import Sentence, Span
from text.tags import spans_at

# What a terminal obeys, or would end a line of ours.
CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f]")
MOST_TAGGINGS = 1000  # of a sentence
# Sentences tagged and printed at a time.
CHUNK = 256


@dataclass(frozen=True)
class Term:
    """A term found, and its probability."""

    span: Span
    confidence: float


@dataclass(frozen=True)
class Prediction:
    """A sentence with its terms, in order, and the best taggings' terms if they were asked for.

    Attributes:
        sentence: the text; its spans are what was found.
        terms: distinct as they are written, each where it occurs first.
        alternatives: (probability, terms' spans) of the n best taggings.
    """

    sentence: Sentence
    terms: tuple[Term, ...]
    alternatives: tuple[tuple[float, tuple[Span, ...]], ...] = ()


def predict(
    runs: Sequence[Path],
    inputs: Sequence[str],
    *,
    nbest: int | None,
    form: str,
    changes: dict[str, Any],
) -> None:
    """Print the terms of every input sentence.

    Args:
        runs: run folders; of several the scores are averaged.
        inputs: each a file in any format of `corpus_files`, `-` for standard input (a sentence
            a line), or else a sentence itself.
        nbest: how many of each sentence's best taggings to show beside its terms, or none.
        form: text, jsonl, xml or html.
        changes: settings that may differ from the runs', and the `columns` of column files.

    Raises:
        InputError: no run, a file that cannot be read, nbest below 1, an argument without effect.
    """
    if nbest is not None:
        check_range("--nbest", nbest, 1, MOST_TAGGINGS)
        if form == "xml":
            raise InputError(f"--nbest={nbest} has no effect with --format=xml: leave it out")
    chunks = [(name, _check_input(name)) for name in inputs]
    columns = changes.get("columns")
    if columns and None in [path for _, path in chunks]:
        raise InputError(
            f"--columns={columns} is for files, and not every --input is one: leave it out"
        )
    ensemble = Ensemble(runs, {name: changes[name] for name in changes.keys() - {"columns"}})
    header, footer = _FRAMES.get(form, ("", ""))
    if header:
        say(header)
    number = 0
    for name, path in chunks:
        for chunk in _read(name, path, columns):
            for prediction in extract(ensemble, chunk, nbest):
                number += 1
                # Several files may number their sentences alike.
                id = "" if len(chunks) > 1 else prediction.sentence.id
                say(_FORMS[form](prediction, id or str(number)))
    if footer:
        say(footer)


def extract(
    ensemble: Ensemble, sentences: Sequence[Sentence], nbest: int | None
) -> list[Prediction]:
    """The terms of sentences."""
    extractor = ensemble.extractor
    split = ensemble.tokenize(sentences)
    emissions = ensemble.emissions(split)
    scores = (ensemble.transitions, emissions)
    chances = extractor.choose_terms(*scores)
    paths: list[list[decoding.Path]] = [[] for _ in sentences]
    if nbest is not None:
        paths = decoding.best_paths(*scores, extractor.allowed, nbest)
    found = []
    for n, sentence in enumerate(sentences):
        spans = spans_at(split.tokens[n], chances[n])
        terms: dict[str, Term] = {}
        for span, chance in zip(spans, chances[n].values(), strict=True):
            terms.setdefault(sentence.text[slice(*span)], Term(span, chance))
        alternatives = tuple(
            (path.probability, extractor.scheme.decode(split.tokens[n], path.tags))
            for path in paths[n]
        )
        found.append(
            Prediction(
                Sentence(sentence.id, sentence.text, spans), tuple(terms.values()), alternatives
            )
        )
    return found


def _check_input(name: str) -> Path | None:
    """The file that an input names, None for a sentence or standard input.

    Raises InputError for what looks like a file, such as a.txt or dir/file, but is none.
    """
    try:
        if name not in ("-", "") and Path(name).exists():
            return Path(name)
    except (OSError, ValueError):  # too long for a file name: a sentence
        return None
    if re.fullmatch(r"\S+\.[A-Za-z]\w{0,5}|\S*/\S*", name):
        raise InputError(f"--input={name} does not exist; a sentence has a space in it, or no dot")
    return None


def _read(name: str, path: Path | None, columns: str | None = None) -> Iterator[list[Sentence]]:
    """The sentences of an input, a chunk at a time."""
    if path is not None:
        sentences = corpus_files.read(path, log=warn, columns=columns, plain=True).sentences
        for start in range(0, len(sentences), CHUNK):
            yield list(sentences[start : start + CHUNK])
    elif name == "-":
        replaced = False
        for lines in _available_lines():
            if not replaced and any("\ufffd" in line for line in lines):
                replaced = True
                warn("standard input is not all UTF-8: what is not, is shown as \ufffd")
            found = [Sentence("", line) for line in lines if line.strip()]
            for start in range(0, len(found), CHUNK):
                yield found[start : start + CHUNK]
    else:
        yield [Sentence("", os.fsencode(name).decode(errors="replace"))]  # bytes that are no UTF-8


def _available_lines() -> Iterator[list[str]]:
    """The lines of standard input, those that are there at once together."""
    rest, encoding = b"", "utf-8-sig"
    while data := os.read(sys.stdin.fileno(), 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield conll.split_lines(b"\n".join(lines).decode(encoding, "replace"))
            encoding = "utf-8"  # a byte order mark stands at the beginning alone
    yield conll.split_lines(rest.decode(encoding, "replace"))


def _term(text: str, span: Span) -> dict[str, Any]:
    return {"term": text[slice(*span)], "from": span.start, "to": span.end}


def as_json(prediction: Prediction, id: str) -> str:
    """A line of JSON."""
    text = prediction.sentence.text
    terms = [_term(text, t.span) | {"confidence": t.confidence} for t in prediction.terms]
    line: dict[str, Any] = {"text": text, "terms": terms}
    if prediction.alternatives:
        line["nbest"] = [
            {"probability": chance, "terms": [_term(text, span) for span in spans]}
            for chance, spans in prediction.alternatives
        ]
    shown = json.dumps(line, ensure_ascii=False)  # which leaves some control characters
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", shown)


def as_text(prediction: Prediction, id: str) -> str:
    """The sentence, and a line for each term, for a terminal."""
    # Of as many characters, so that the offsets stay.
    text = CONTROL.sub("\N{REPLACEMENT CHARACTER}", prediction.sentence.text)
    rows = [
        (text[slice(*term.span)], f"{term.span.start}-{term.span.end}", f"{term.confidence:.3f}")
        for term in prediction.terms
    ]
    width = max((len(row[0]) for row in rows), default=0)
    lines = [f"    {term:<{width}}  {place:>9}  {chance}" for term, place, chance in rows]
    lines += [f"    {line}" for line in _alternatives(text, prediction)]
    return "\n".join([text, *(lines or ["    no term"])])


def _alternatives(text: str, prediction: Prediction) -> list[str]:
    """A line for each of the best taggings that were asked for, of the text as it is shown."""
    return [
        f"probability {chance:.3f}: "
        + (", ".join(text[slice(*span)] for span in spans) or "no term")
        for chance, spans in prediction.alternatives
    ]


def as_xml(prediction: Prediction, id: str) -> str:
    """The sentence as the SemEval scorer reads it."""
    sentence = prediction.sentence
    return semeval.format_sentence(Sentence(id, sentence.text, sentence.spans))


def as_html(prediction: Prediction, id: str) -> str:
    """The sentence with its terms marked, each with its confidence."""
    text = prediction.sentence.text
    confidence = {text[slice(*term.span)]: term.confidence for term in prediction.terms}
    marks = [(span, confidence[text[slice(*span)]]) for span in prediction.sentence.spans]
    return highlight.mark(text, marks, _alternatives(text, prediction))


_FORMS = {"text": as_text, "jsonl": as_json, "xml": as_xml, "html": as_html}
# What comes before and after the sentences.
_FRAMES = {
    "xml": (semeval.HEADER, semeval.FOOTER),
    "html": (highlight.HEADER, highlight.FOOTER),
}

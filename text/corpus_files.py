"""A file of sentences in any of the formats that can be read.

The extension tells the format: .xml is SemEval's; .jsonl and .json hold a JSON object a line;
.conll, .bio, .iob and .tsv hold columns. Any other file is known by what is in it: one that
begins with a tag is XML, with { JSON lines; one whose lines have as many columns, one of them all
tags, holds columns; the rest is plain text, a sentence a line, which has no terms.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import InputError
from text import conll, semeval
from text.readings import Collector, Log, Reading, Term
from text.sentences import Sentence

EXTENSIONS = {
    ".xml": "xml",
    ".jsonl": "json",
    ".json": "json",
    ".conll": "columns",
    ".bio": "columns",
    ".iob": "columns",
    ".tsv": "columns",
}
_WITH_TERMS = "SemEval XML, CoNLL columns or JSON lines"
_REMEDY = "save the file as UTF-8 text"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # json joins the pairs


def read(
    path: Path,
    *,
    log: Log,
    columns: str | None = None,
    merge_repeated: bool = False,
    plain: bool = False,
) -> Reading:
    """The sentences of a file, and its terms if it has any.

    Args:
        path: the file, UTF-8 (XML: as it declares).
        log: receives a line for each term that is not where its offsets say, and what else a
            reader tells.
        columns: of column files, see `conll.parse`; what would be plain text is one then.
        merge_repeated: join sentences of equal text into the first, with the terms of all.
        plain: whether plain text will do, as it does for prediction.

    Raises:
        InputError: the file is absent, empty, damaged, or plain text where that will not do.
    """
    content = _read_bytes(path)
    kind = EXTENSIONS.get(path.suffix.lower()) or _recognise(content, path)
    if columns and kind == "plain":
        kind = "columns"
    if columns and kind != "columns":
        raise InputError(f"--columns={columns} is for column files, which {path} is not")
    if kind == "xml":
        reading = semeval.parse(content, str(path), log)
    elif kind == "columns":
        reading = conll.parse(_decode(content, path), str(path), log, columns)
    elif kind == "json":
        reading = _parse_json(_decode(content, path), str(path), log)
    elif plain:
        reading = _parse_plain(_decode(content, path))
    else:
        raise InputError(f"{path} is plain text, which has no terms: give {_WITH_TERMS}")
    if not reading.sentences:
        raise InputError(f"{path} holds no sentence: give {_WITH_TERMS}")
    if reading.repaired or reading.skipped:
        log(f"{path}: {reading.repaired} terms moved, {reading.skipped} skipped")
    if merge_repeated:
        reading = reading._replace(sentences=_merge(reading.sentences))
    return reading


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a folder: give a file")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if not content.strip():
        raise InputError(f"{path} is empty: give a file with sentences")
    return content


def _decode(content: bytes, path: Path) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _line_at(content, error.start)
        raise InputError(f"{path}, line {place}: not UTF-8: {_REMEDY}") from None
    if "\0" in text:
        place = _line_at(content, content.index(b"\0"))
        raise InputError(f"{path}, line {place}: a zero byte, which no text has: {_REMEDY}")
    return text


def _line_at(content: bytes, place: int) -> int:
    """The number of the line, from 1, that a byte stands in."""
    return len((content[:place] + b"?").splitlines())


def _recognise(content: bytes, path: Path) -> str:
    begin = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:2]
    if re.match(rb"<[?!A-Za-z]", begin):
        return "xml"
    if begin.startswith(b"{"):
        return "json"
    return "columns" if conll.looks_like_columns(_decode(content, path)) else "plain"


def _merge(sentences: tuple[Sentence, ...]) -> tuple[Sentence, ...]:
    merged: dict[str, Sentence] = {}
    for sentence in sentences:
        first = merged.setdefault(sentence.text, sentence)
        spans = tuple(sorted({*first.spans, *sentence.spans}))
        merged[sentence.text] = replace(first, spans=spans)
    return tuple(merged.values())


def _parse_plain(content: str) -> Reading:
    lines = enumerate(conll.split_lines(content), start=1)
    return Reading(tuple(Sentence(str(n), line) for n, line in lines if line.strip()))


def _parse_json(content: str, name: str, log: Log) -> Reading:
    """{"text": ..., "terms": [[from, to], ...], "id": ...} a line; terms and id may be left out.

    A term may also be {"from": ..., "to": ..., "term": ...}, as predictions are written.
    """
    collector = Collector(name, log)
    rows, lacking = 0, []
    for n, line in enumerate(conll.split_lines(content), start=1):
        if not line.strip():
            continue
        row = _json_object(line, f"{name}, line {n}")
        rows += 1
        if "terms" not in row:
            lacking.append(n)
        terms = row.get("terms", [])
        if not isinstance(terms, list):
            raise InputError(f"{name}, line {n}: terms is not a list such as [[0, 4]]")
        id = str(row["id"]) if row.get("id") is not None else None
        collector.add(n, id, row["text"], [_json_term(n, term, name) for term in terms])
    if 0 < len(lacking) < rows:
        log(
            f"{name}: {len(lacking)} of {rows} sentences, the first in line {lacking[0]}, have no "
            '"terms" and are taken to have none'
        )
    return collector.reading()


def _json_object(line: str, place: str) -> dict[str, Any]:
    """The object of a line; InputError, saying its place, unless it has a text."""
    try:
        row = json.loads(line, object_pairs_hook=_distinct)
    except _RepeatedKey as error:
        raise InputError(f"{place}: {error}: delete one") from None
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise InputError(f'{place}: not a JSON object such as {{"text": "..."}}')
    if _LONE_SURROGATE.search(row["text"] + str(row.get("id"))):
        raise InputError(
            f"{place}: half a surrogate pair (such as \\ud83d) is no character: delete it"
        )
    return row


class _RepeatedKey(ValueError):
    pass


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of which json would keep the last of equal keys without a word."""
    row = dict(pairs)
    if len(row) < len(pairs):
        repeated = next(key for n, (key, _) in enumerate(pairs) if key in dict(pairs[:n]))
        raise _RepeatedKey(f"the key {repeated[:40]!r} stands twice")
    return row


def _json_term(line: int, term: Any, name: str) -> Term:
    if isinstance(term, dict):
        start, end, written = term.get("from"), term.get("to"), term.get("term")
    elif isinstance(term, list) and len(term) == 2:
        (start, end), written = term, None
    else:
        start = end = written = None
    if type(start) is int and type(end) is int and isinstance(written, str | None):
        return Term(line, start, end, written)
    shown = json.dumps(term)[:60]
    like = '[0, 4] or {"from": 0, "to": 4}'
    raise InputError(f"{name}, line {line}: {shown} is no term such as {like}")

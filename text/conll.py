"""Column files of the CoNLL shared tasks: a token and its tag a line, a blank line between
sentences, as in Tjong Kim Sang and De Meulder 2003, aclanthology.org/W03-0419.

Columns are parted by tabs if every line has one, else by spaces or tabs. Where they are parted by
tabs, a line before a sentence that begins with # and has none is a comment, as in CoNLL-U; where
the first column numbers the tokens, its rows of several words (2-3) and of unwritten ones (8.1)
are skipped. Tags are O and B, I, E (or L) and S (or U), with or without a type as in B-ASP;
terms of every type are read, leniently, by `tags.term_ranges`.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from common.errors import InputError
from text.readings import Log, Reading
from text.sentences import Sentence, Span
from text.tags import term_ranges
from text.tokenizers import CJK

DOCUMENT = "-DOCSTART-"  # a line between the documents of CoNLL-2003, and no sentence
_TAG = re.compile(r"O|[BIESLU](-.+)?")
_NO_TOKEN = re.compile(r"\d+[-.]\d+")  # how CoNLL-U numbers what is no token
_CJK = re.compile(f"[{CJK}]")


class Row(NamedTuple):
    line: int
    fields: list[str]


def split_lines(content: str) -> list[str]:
    """The lines of a text, whatever ends them; unlike str.splitlines, at no other character."""
    return content.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def parse(content: str, name: str, log: Log, columns: str | None = None) -> Reading:
    """The sentences of a column file.

    The text of a sentence is its tokens, a space between them; where no token holds more than
    one CJK character and some hold one, the file gives a character a line and the text has
    spaces only between words of other scripts.

    Args:
        content: the file.
        name: of the file, for messages.
        log: receives a line that tells which columns were found, if there are more than two.
        columns: which are token and tag, as names ("token,pos,tag") or numbers from 0 ("0,2",
            negative from the end); None takes the first as token, or the second where the first
            numbers the tokens, and finds the tags.

    Raises:
        InputError: lines of different width, no column of tags, a tag or `columns` that is
            none.
    """
    blocks = _split_blocks(content)
    rows = [row for block in blocks for row in block]
    if not rows:
        return Reading(())
    width = len(rows[0].fields)
    for line, fields in rows:
        if len(fields) != width:
            plain = ", or leave --columns out, if it is plain text" if columns else ""
            raise InputError(
                f"{name}, line {line}: {len(fields)} columns, but line {rows[0].line} has {width}: "
                f"make them equal{plain}"
            )
    if columns:
        token_column, tag_column = _choose(columns, width, name)
        remedy = f"name other columns of the {width} than --columns={columns}"
    else:
        token_column = 1 if _numbers_tokens(blocks) else 0
        tag_column = _find_tags(rows, name, token_column)
        remedy = f"name the columns, 0 to {width - 1}, as in --columns=0,{width - 1}"
        if width > 2:
            log(
                f"{name}: of {width} columns, from 0, {token_column} has the tokens and "
                f"{tag_column} the tags (--columns says otherwise)"
            )
    for line, fields in rows:
        if not _TAG.fullmatch(fields[tag_column]):
            header = ", delete it if it is a header" if line == rows[0].line else ""
            raise InputError(
                f"{name}, line {line}: {fields[tag_column]!r} is no tag such as O, B or I-ASP: "
                f"correct it{header}, or {remedy}"
            )
        if not fields[token_column]:
            raise InputError(f"{name}, line {line}: the token is missing")
    tokens = [[row.fields[token_column] for row in block] for block in blocks]
    tags = [[row.fields[tag_column] for row in block] for block in blocks]
    by_character = _is_by_character([token for sentence in tokens for token in sentence])
    sentences = (
        _sentence(str(n), *pair, by_character)
        for n, pair in enumerate(zip(tokens, tags, strict=True), start=1)
    )
    return Reading(tuple(sentences))


def looks_like_columns(content: str) -> bool:
    """Whether every line has as many columns, and one of them holds nothing but tags."""
    rows = [row for block in _split_blocks(content) for row in block]
    widths = {len(row.fields) for row in rows}
    return len(widths) == 1 and _best_tag_column(rows)[1] == len(rows)


def _split_blocks(content: str) -> list[list[Row]]:
    """The rows of each sentence."""
    lines = split_lines(content)
    filled = [x for x in lines if x.strip(" \t") and not x.startswith(DOCUMENT)]
    tabs = ["\t" in line for line in filled if not _may_be_comment(line)]
    by_tab = all(tabs) and bool(tabs)
    blocks: list[list[Row]] = [[]]
    for n, line in enumerate(lines, start=1):
        if line.startswith(DOCUMENT):
            blocks.append([])
        elif by_tab and not blocks[-1] and _may_be_comment(line):
            continue
        elif line.strip(" \t"):
            # Only ASCII white space parts columns: the ideographic space is a token.
            fields = line.split("\t") if by_tab else re.split("[ \t]+", line.strip(" \t"))
            blocks[-1].append(Row(n, fields))
        elif blocks[-1]:
            blocks.append([])
    return _tokens_alone([block for block in blocks if block])


def _tokens_alone(blocks: list[list[Row]]) -> list[list[Row]]:
    """Without the rows of CoNLL-U that are no tokens, if the first column numbers these."""
    tokens = [[row for row in block if not _NO_TOKEN.fullmatch(row.fields[0])] for block in blocks]
    return [block for block in tokens if block] if _numbers_tokens(tokens) else blocks


def _may_be_comment(line: str) -> bool:
    return line.startswith("#") and "\t" not in line


def _choose(columns: str, width: int, name: str) -> tuple[int, int]:
    """The token and the tag column that --columns names."""
    names = [part for part in re.split(r"[,\s]+", columns) if part]
    names = ["token" if part == "word" else part for part in names]
    if names.count("token") == 1 and names.count("tag") == 1:
        chosen = names.index("token"), names.index("tag")
    elif len(names) == 2 and all(re.fullmatch(r"-?\d{1,4}", part) for part in names):
        chosen = int(names[0]), int(names[1])
    else:
        raise InputError(
            f"--columns={columns} must name a token and a tag column, as in token,pos,tag, "
            "or give their numbers from 0, as in 0,2"
        )
    if not all(-width <= column < width for column in chosen):
        raise InputError(
            f"--columns={columns} does not fit {name}, whose columns are 0 to {width - 1}"
        )
    return chosen


def _numbers_tokens(blocks: Sequence[Sequence[Row]]) -> bool:
    """Whether the first of three or more columns counts each sentence's tokens from 1, as in
    CoNLL-U."""
    numbers = [[row.fields[0] for row in block] for block in blocks]
    counted = all(found == [str(n + 1) for n in range(len(found))] for found in numbers)
    several = all(len(row.fields) > 2 for block in blocks for row in block)
    return counted and several and any(len(found) > 1 for found in numbers)


def _best_tag_column(rows: Sequence[Row], token_column: int = 0) -> tuple[int, int]:
    """The column after the tokens' in which tags go on longest, and for how many rows."""
    best, most = 0, 0
    for column in range(token_column + 1, len(rows[0].fields)):
        wrong = (n for n, row in enumerate(rows) if not _TAG.fullmatch(row.fields[column]))
        count = next(wrong, len(rows))
        if count > most:
            best, most = column, count
    return best, most


def _find_tags(rows: Sequence[Row], name: str, token_column: int) -> int:
    """The column of the tags; a row that has none there is for the caller to report."""
    column, count = _best_tag_column(rows, token_column)
    if count:
        return column
    for column in range(token_column + 1, len(rows[0].fields)):
        tagged = sum(bool(_TAG.fullmatch(row.fields[column])) for row in rows)
        if 2 * tagged > len(rows):  # the first row alone is wrong
            return column
    raise InputError(
        f"{name}, line {rows[0].line}: no column after the tokens' holds tags such as O, B or "
        "I-ASP: name the columns, from 0, as in --columns=0,2, or delete a header line"
    )


def _is_by_character(tokens: Sequence[str]) -> bool:
    ideographic = [token for token in tokens if _CJK.search(token)]
    return bool(ideographic) and all(len(token) == 1 for token in ideographic)


def _sentence(id: str, tokens: Sequence[str], tags: Sequence[str], by_character: bool) -> Sentence:
    text, places = "", []
    for n, token in enumerate(tokens):
        is_apart = not by_character or (len(token) > 1 and len(tokens[n - 1]) > 1)
        if n and is_apart:
            text += " "
        places.append(Span(len(text), len(text) + len(token)))
        text += token
    ranges = term_ranges(tags)
    spans = tuple(Span(places[first].start, places[last - 1].end) for first, last in ranges)
    return Sentence(id, text, spans)

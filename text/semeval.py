"""The XML of SemEval's aspect-term tasks, read in both its forms and written in the first.

    2014 task 4       sentence/aspectTerms/aspectTerm  term   from to
    2015 12, 2016 5   sentence/Opinions/Opinion        target from to   (NULL: no term)

Offsets count the characters of sentence/text. Pontiki et al. 2014, aclanthology.org/S14-2004;
2016, aclanthology.org/S16-1002.
"""

from collections.abc import Iterable
from pathlib import Path
from xml.parsers import expat

from common.errors import InputError
from text.readings import Collector, Log, Reading, Term
from text.sentences import Sentence

HEADER = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n<sentences>'
FOOTER = "</sentences>"


def parse(content: bytes, name: str, log: Log) -> Reading:
    """The sentences of a SemEval file.

    Args:
        content: the file, in the encoding that it declares.
        name: of the file, for messages.
        log: receives a line for each term that is not where its offsets say.

    Raises:
        InputError: not XML, no SemEval XML, or with a DOCTYPE, whose entities could grow
            without bound or name other files.
    """
    collector = Collector(name, log)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    handler = _Handler(parser, name, collector)
    parser.StartElementHandler = handler.start
    parser.EndElementHandler = handler.end
    parser.CharacterDataHandler = handler.characters
    parser.StartDoctypeDeclHandler = handler.refuse_doctype
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # the last two: its encoding
        reason = str(error).partition(": line")[0]
        line = parser.CurrentLineNumber
        raise InputError(f"{name}, line {line}: not XML ({reason}): repair it") from None
    return collector.reading()


class _Handler:
    """Receives the elements of a file and hands its sentences to a collector."""

    def __init__(self, parser: expat.XMLParserType, name: str, collector: Collector):
        self._parser = parser
        self._name = name
        self._collector = collector
        self._id: str | None = None
        self._line = 0  # of the sentence that is open; 0 between sentences
        self._text: list[str] | None = None
        self._in_text = False
        self._terms: list[Term] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        line = self._parser.CurrentLineNumber
        if tag == "sentence":
            if self._line:
                raise InputError(
                    f"{self._name}, line {line}: a sentence in that of line {self._line}: close it"
                )
            self._id, self._line, self._text, self._terms = attributes.get("id"), line, None, []
        elif tag == "text" and self._line:
            self._in_text, self._text = True, []
        elif tag in ("aspectTerm", "Opinion"):
            term = attributes.get("term" if tag == "aspectTerm" else "target")
            # Opinions on laptops have no target at all.
            if tag == "aspectTerm" or term not in (None, "NULL"):
                start, end = (_offset(attributes.get(key)) for key in ("from", "to"))
                self._terms.append(Term(line, start, end, term))

    def characters(self, data: str) -> None:
        if self._in_text and self._text is not None:
            self._text.append(data)

    def end(self, tag: str) -> None:
        if tag == "text":
            self._in_text = False
        elif tag == "sentence":
            if self._text is None:
                raise InputError(f"{self._name}, line {self._line}: the sentence has no <text>")
            self._collector.add(self._line, self._id, "".join(self._text), self._terms)
            self._line = 0

    def refuse_doctype(self, *_: object) -> None:
        line = self._parser.CurrentLineNumber
        raise InputError(f"{self._name}, line {line}: a DOCTYPE is not accepted: delete it")


def _offset(value: str | None) -> int | None:
    try:
        return None if value is None else int(value)
    except ValueError:
        return None


def write_predictions(path: Path, sentences: Iterable[Sentence]) -> None:
    """Write sentences with their (predicted) spans in the form of 2014, which `parse` reads.

    Raises:
        InputError: the file cannot be written.
    """
    lines = [HEADER, *(format_sentence(sentence) for sentence in sentences), FOOTER]
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None


def format_sentence(sentence: Sentence) -> str:
    """The lines of a sentence, to stand between HEADER and FOOTER.

    Characters that XML cannot hold become U+FFFD, one for one, so that offsets stay true.
    """
    lines = [
        f'    <sentence id="{_escape(sentence.id)}">',
        f"        <text>{_escape(sentence.text)}</text>",
    ]
    if sentence.spans:
        lines.append("        <aspectTerms>")
        for start, end in sentence.spans:
            term = _escape(sentence.text[start:end])
            lines.append(f'            <aspectTerm term="{term}" from="{start}" to="{end}"/>')
        lines.append("        </aspectTerms>")
    return "\n".join([*lines, "    </sentence>"])


_FORBIDDEN = {
    **dict.fromkeys(range(0x20), "\ufffd"),
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
    **dict.fromkeys((0xFFFE, 0xFFFF), "\ufffd"),
}
# What has a meaning in XML, and what a terminal would obey.
_REFERENCES = {code: f"&#{code};" for code in (*map(ord, '\t\n\r&<>"'), *range(0x7F, 0xA0))}


def _escape(text: str) -> str:
    """`text` for an attribute or an element, with the white space that either would change."""
    return text.translate(_FORBIDDEN | _REFERENCES)

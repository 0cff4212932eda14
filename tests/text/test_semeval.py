"""SemEval XML: both forms, wrong offsets, unsafe and broken files, and writing."""

import numpy as np
import pytest

from common.errors import InputError
from text.semeval import parse, write_predictions
from text.sentences import Sentence, Span

TEXT = "The wine list is long; the wine is good &amp; &lt;cheap&gt;."


def first_form(*terms: str, text: str = TEXT) -> bytes:
    parts = "\n".join(f"<aspectTerm {term}/>" for term in terms)
    return (
        f'<sentences>\n<sentence id="a1">\n<text>{text}</text>\n'
        f"<aspectTerms>\n{parts}\n</aspectTerms>\n</sentence>\n</sentences>"
    ).encode()


def read_one(content: bytes) -> tuple[Sentence, tuple[int, int], list[str]]:
    lines: list[str] = []
    reading = parse(content, "f.xml", lines.append)
    (sentence,) = reading.sentences
    return sentence, (reading.repaired, reading.skipped), lines


def test_2014():
    sentence, counts, lines = read_one(
        first_form(
            'term="wine" polarity="positive" from="27" to="31"',
            'term="wine list" from="4" to="13"',
            'term="wine list" from="4" to="13"',
            'term="&lt;cheap&gt;" from="42" to="49"',
        )
    )
    assert sentence.id == "a1"
    assert sentence.text == "The wine list is long; the wine is good & <cheap>."
    assert sentence.terms == ("wine list", "wine", "<cheap>")
    assert sentence.spans == (Span(4, 13), Span(27, 31), Span(42, 49))
    assert counts == (0, 0) and lines == []


def test_2016():
    sentence, counts, lines = read_one(
        b"""<?xml version="1.0"?><Reviews><Review rid="7"><sentences>
        <sentence id="7:0" OutOfScope="TRUE"><text> Good  beer. </text><Opinions>
        <Opinion target="beer" category="DRINKS#QUALITY" from="7" to="11"/>
        <Opinion target="beer" category="DRINKS#PRICES" from="7" to="11"/>
        <Opinion target="NULL" category="FOOD#QUALITY" from="0" to="0"/>
        <Opinion category="LAPTOP#GENERAL" polarity="positive"/>
        </Opinions></sentence></sentences></Review></Reviews>"""
    )
    assert sentence == Sentence("7:0", " Good  beer. ", (Span(7, 11),))
    assert counts == (0, 0) and lines == []


def test_ids_that_are_missing_are_counted():
    content = b"<s><sentence><text>a</text></sentence><sentence><text/></sentence></s>"
    sentences = parse(content, "f.xml", print).sentences
    assert sentences == (Sentence("1", "a"), Sentence("2", ""))


@pytest.mark.parametrize(
    "term, place",
    [
        ('term="list" from="10" to="14"', (9, 13)),
        ('term="list" from="9" to="9"', (9, 13)),
        ('term="list" from="13" to="9"', (9, 13)),
        ('term="list" from="-1" to="400"', (9, 13)),
        ('term="list"', (9, 13)),
        ('term="list" from="x" to="13.0"', (9, 13)),
        ('term="wine" from="5" to="9"', (4, 8)),
        ('term="wine" from="26" to="30"', (27, 31)),
        ('term="wine"', None),
        ('term="beer" from="4" to="8"', None),
        ('term="" from="4" to="8"', None),
        ('from="49" to="99"', None),
    ],
)
def test_a_term_that_is_not_at_its_offsets(term, place):
    sentence, counts, lines = read_one(first_form('term="good" from="35" to="39"', term))
    assert sentence.spans == tuple(sorted([(35, 39), *([place] if place else [])]))
    assert counts == ((1, 0) if place else (0, 1))
    (line,) = lines
    assert line.startswith("f.xml, line 6, sentence a1: ")
    assert line.endswith(f": moved to {place[0]} to {place[1]}" if place else ": skipped")


def test_offsets_suffice_and_white_space_is_equal():
    text = "a hard\u00a0 drive\nbay"
    sentence, counts, _ = read_one(
        first_form('term="hard  drive bay" from="2" to="17"', 'from="0" to="1"', text=text)
    )
    assert sentence.terms == ("a", "hard\u00a0 drive\nbay") and counts == (0, 0)


def test_lines_of_an_old_macintosh_are_counted():
    content = first_form('term="beer" from="4" to="8"').replace(b"\n", b"\r")
    assert read_one(content)[2][0].startswith("f.xml, line 5,")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"<a>\n<b>\n</a>", "f.xml, line 3: not XML (mismatched tag): repair it"),
        (b"<a>\n&nbsp;</a>", "f.xml, line 2: not XML (undefined entity): repair it"),
        (b"<a>\n\xff</a>", "f.xml, line 2: not XML (not well-formed (invalid token)): repair it"),
        (b"<a><sentence>\n<sentence>", "f.xml, line 2: a sentence in that of line 1: close it"),
        (b"<a>", "f.xml, line 1: not XML (no element found): repair it"),
        (b'<?xml version="1.0" encoding="nothing"?><a/>', "f.xml, line 1: not XML (unknown enc"),
        (b'<?xml version="1.0" encoding="gbk"?><a/>', "f.xml, line 1: not XML (multi-byte enc"),
        (
            b'<!DOCTYPE a [<!ENTITY b "bb">]>\n<a>&b;</a>',
            "f.xml, line 1: a DOCTYPE is not accepted: delete it",
        ),
        (
            b'\n<!DOCTYPE a SYSTEM "file:///etc/passwd">\n<a/>',
            "f.xml, line 2: a DOCTYPE is not accepted: delete it",
        ),
        (b'<a>\n\n<sentence id="x"/></a>', "f.xml, line 3: the sentence has no <text>"),
        (
            b'<a><sentence id="x"><text/></sentence>\n<sentence id="x"><text/></sentence></a>',
            "f.xml, line 2: the id x is that of an earlier sentence too: give each its own",
        ),
    ],
)
def test_broken_and_unsafe_files(content, message):
    with pytest.raises(InputError) as error:
        parse(content, "f.xml", print)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "iso-8859-1"])
def test_declared_encodings(encoding):
    declared = encoding.removesuffix("-sig")
    content = (
        f'<?xml version="1.0" encoding="{declared}"?><s><sentence><text>café</text></sentence></s>'
    )
    assert parse(content.encode(encoding), "f.xml", print).sentences[0].text == "café"


def test_what_is_written_is_read_back(tmp_path):
    random = np.random.default_rng(11)
    alphabet = list("ab c&<>\"'\t\n\r\u00a0é我😀\x7f\x85\u2028]")
    sentences = []
    for n in range(100):
        text = "".join(random.choice(alphabet, random.integers(0, 40)))
        bounds = np.sort(random.integers(0, len(text) + 1, (4, 2)), axis=1).tolist()
        spans = sorted({Span(a, b) for a, b in bounds if text[a:b]})
        sentences.append(Sentence(f'<"{n}&>', text, tuple(spans)))
    write_predictions(tmp_path / "p.xml", sentences)
    lines: list[str] = []
    reading = parse((tmp_path / "p.xml").read_bytes(), "p.xml", lines.append)
    assert list(reading.sentences) == sentences
    assert lines == []


def test_characters_outside_xml_are_replaced_one_for_one(tmp_path):
    write_predictions(tmp_path / "p.xml", [Sentence("1", "\0a\ud800b\x1f c\uffff", (Span(0, 4),))])
    sentence = read_one((tmp_path / "p.xml").read_bytes())[0]
    assert sentence == Sentence("1", "\ufffda\ufffdb\ufffd c\ufffd", (Span(0, 4),))


def test_form_of_what_is_written(tmp_path):
    path = tmp_path / "p.xml"
    write_predictions(path, [Sentence("1", "Good beer", (Span(5, 9),)), Sentence("2", "Hm")])
    assert path.read_text().splitlines() == [
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>',
        "<sentences>",
        '    <sentence id="1">',
        "        <text>Good beer</text>",
        "        <aspectTerms>",
        '            <aspectTerm term="beer" from="5" to="9"/>',
        "        </aspectTerms>",
        "    </sentence>",
        '    <sentence id="2">',
        "        <text>Hm</text>",
        "    </sentence>",
        "</sentences>",
    ]


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="p.xml cannot be written: No such file or directory"):
        write_predictions(tmp_path / "absent" / "p.xml", [])

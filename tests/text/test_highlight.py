"""Sentences as HTML: the text stays, the terms are marked, the colours can be read."""

from html.parser import HTMLParser

import pytest

from text.highlight import FOOTER, HEADER, INK, LINE, PAPER, mark
from text.sentences import Span


class Reader(HTMLParser):
    """What a browser would show: the text without the numbers, and what is marked."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.marked, self.numbers = [], "", [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)
        if tag == "mark":
            self.marked.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "small":
            self.numbers.append(data)
            return
        self.text += data
        if "mark" in self.open:
            self.marked[-1] += data


@pytest.mark.parametrize(
    "text, spans",
    [
        ("Great screen, poor keyboard", [(6, 12), (19, 27)]),
        ("whole", [(0, 5)]),
        ("side by side: ab", [(14, 15), (15, 16)]),
        ("<script>alert('x')</script> & \"more\"", [(0, 8), (28, 29)]),
        ("&lt; stays as it is", [(0, 4)]),
        ("שירות מצוין, אוכל פחות 😀", [(0, 5), (13, 17), (23, 24)]),
        ("no term", []),
        ("", []),
    ],
)
def test_every_character_is_there_and_the_terms_are_marked(text, spans):
    found = Reader(mark(text, [(Span(*span), 0.75) for span in spans]))
    assert found.text == text
    assert found.marked == [text[slice(*span)] for span in spans]
    assert found.numbers == ["0.75"] * len(spans)


def test_an_unsure_term_is_told_by_more_than_a_number():
    line = mark("ab", [(Span(0, 1), 0.49), (Span(1, 2), 0.5)])
    assert '<mark class="unsure">a</mark>' in line and "<mark>b</mark>" in line


def test_alternatives_are_listed():
    found = Reader(mark("ab", [], ["probability 0.9: <a>", "probability 0.1: no term"]))
    assert found.text == "ab\nprobability 0.9: <a>probability 0.1: no term"


def test_a_page_stands_alone_and_styles_nothing_else():
    page = "\n".join([HEADER, mark("ab", [(Span(0, 1), 1.0)]), FOOTER])
    assert Reader(page).marked == ["a"]
    assert "http" not in page and "<script" not in page and "url(" not in page
    style = page.partition("<style>")[2].partition("</style>")[0]
    selectors = [rule.partition("{")[0].strip() for rule in style.split("}") if rule.strip()]
    assert selectors and all(selector.startswith(".athanor-terms") for selector in selectors)


def luminance(colour):
    """Relative luminance of "#RRGGBB" (WCAG 2.2)."""
    shares = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    "one, other, least", [(INK, PAPER, 7), (LINE, PAPER, 3), (LINE, "#FFFFFF", 3)]
)
def test_contrast(one, other, least):
    """7 for text (level AAA), 3 for the parts of a graphic."""
    dark, light = sorted(luminance(colour) for colour in (one, other))
    assert (light + 0.05) / (dark + 0.05) >= least


def test_what_html_does_not_allow_is_replaced():
    assert "a\N{REPLACEMENT CHARACTER}b\tc" in mark("a\x1bb\tc", [])

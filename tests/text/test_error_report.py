import itertools

import pytest

from text.error_report import Errors, classify_errors, write_errors
from text.sentences import Sentence, Span


def spans(*bounds: tuple[int, int]) -> list[Span]:
    return [Span(*pair) for pair in bounds]


def sentence(id: str, text: str, *terms: str) -> Sentence:
    return Sentence(id, text, tuple(Span(text.index(t), text.index(t) + len(t)) for t in terms))


@pytest.mark.parametrize(
    "gold, predicted, expected",
    [
        ([], [], Errors((), (), (), ())),
        ([(0, 4)], [(0, 4), (0, 4)], Errors(((0, 4),), (), (), ())),
        ([(0, 4)], [], Errors((), ((0, 4),), (), ())),
        ([], [(0, 4)], Errors((), (), ((0, 4),), ())),
        ([(0, 4)], [(0, 5)], Errors((), (), (), (((0, 4), (0, 5)),))),
        ([(2, 4)], [(0, 9)], Errors((), (), (), (((2, 4), (0, 9)),))),
        # They touch but share no character.
        ([(0, 4)], [(4, 6)], Errors((), ((0, 4),), ((4, 6),), ())),
        # One long prediction over two terms, and two short ones inside one term.
        ([(0, 4), (9, 12)], [(0, 12)], Errors((), (), (), (((0, 4), (0, 12)), ((9, 12), (0, 12))))),
        ([(0, 12)], [(0, 4), (9, 12)], Errors((), (), (), (((0, 12), (0, 4)), ((0, 12), (9, 12))))),
        # A right prediction over another, overlapping term does not make that one mis-bounded,
        # nor does a term that was found excuse a second prediction.
        ([(0, 4), (0, 9)], [(0, 9)], Errors(((0, 9),), ((0, 4),), (), ())),
        ([(0, 4)], [(0, 4), (2, 6)], Errors(((0, 4),), (), ((2, 6),), ())),
        # Of overlapping wrong spans, only those with a partner are paired.
        (
            [(0, 4), (6, 8), (20, 24)],
            [(0, 4), (7, 9), (30, 31)],
            Errors(((0, 4),), ((20, 24),), ((30, 31),), (((6, 8), (7, 9)),)),
        ),
    ],
)
def test_classify_by_hand(gold, predicted, expected):
    assert classify_errors(spans(*gold), spans(*predicted)) == expected


def test_every_term_has_one_outcome():
    every = [Span(a, b) for a in range(4) for b in range(a + 1, 5)]
    pairs = list(itertools.combinations(every, 2))
    for gold, predicted in itertools.product(pairs, pairs):
        errors = classify_errors(gold, predicted)
        outcomes = errors.right + errors.missed + errors.misbounded_gold
        assert sorted(outcomes) == sorted(gold)
        outcomes = errors.right + errors.spurious + errors.misbounded_predicted
        assert sorted(outcomes) == sorted(predicted)
        turned = classify_errors(predicted, gold)
        assert (turned.missed, turned.spurious) == (errors.spurious, errors.missed)


def test_the_whole_file(tmp_path):
    sentences = [
        sentence("813", "The food was good, the wine list was not.", "food", "wine list"),
        sentence("814", "Nothing to say."),
        sentence("815", "Food\nand service ...", "Food", "service"),
        sentence("816", "Good food", "food"),
    ]
    predicted = [spans((23, 27)), spans((0, 7)), spans((9, 16)), spans((0, 4))]
    write_errors(tmp_path / "errors.md", sentences, predicted)
    assert (
        (tmp_path / "errors.md").read_text()
        == """# Errors

4 sentences, 5 true terms: 1 found, 3 missed, 1 mis-bounded. 4 predicted terms: 1 right, \
2 spurious, 1 mis-bounded. Exact spans: precision 0.2500, recall 0.2000, F1 0.2222.

Missed most often, capitals aside: `food` (3).

Each sentence follows its identifier, the true terms in backticks; terms that overlap or touch \
share one pair. Mis-bounded terms overlap a prediction with other bounds.

## Missed (3)

- `813`: The `food` was good, the `wine list` was not.
  - missed: `food`
- `815`: `Food` and `service` ...
  - missed: `Food`
- `816`: Good `food`
  - missed: `food`

## Spurious (2)

- `814`: Nothing to say.
  - spurious: `Nothing`
- `816`: Good `food`
  - spurious: `Good`

## Mis-bounded (1 true, 1 predicted)

- `813`: The `food` was good, the `wine list` was not.
  - mis-bounded: `wine list` predicted as `wine`
"""
    )


def test_one_prediction_over_two_terms_counts_once(tmp_path):
    both = sentence("a", "food and wine", "food", "wine")
    write_errors(tmp_path / "errors.md", [both], [spans((0, 13))])
    text = (tmp_path / "errors.md").read_text()
    assert "2 true terms: 0 found, 0 missed, 2 mis-bounded. 1 predicted terms" in text
    assert "## Mis-bounded (2 true, 1 predicted)" in text
    assert "`food` predicted as `food and wine`, `wine` predicted as `food and wine`\n" in text


@pytest.mark.parametrize("right", [True, False])
def test_without_errors_the_sections_say_so(tmp_path, right):
    sentences = [sentence("a", "Good food", "food")] if right else []
    write_errors(tmp_path / "errors.md", sentences, [s.spans for s in sentences])
    text = (tmp_path / "errors.md").read_text()
    assert text.count("\n\nNone.\n") == 3
    assert "Missed most often, capitals aside: none." in text
    assert f"F1 {float(right):.4f}" in text


def test_ten_most_frequent_missed_terms(tmp_path):
    sentences = [
        sentence(f"{n}.{copy}", f"the term{n:02}", f"term{n:02}")
        for n in range(12)
        for copy in range(12 - n)
    ]
    write_errors(tmp_path / "errors.md", sentences, [[]] * len(sentences))
    (line,) = [x for x in (tmp_path / "errors.md").read_text().splitlines() if "often" in x]
    expected = ", ".join(f"`term{n:02}` ({12 - n})" for n in range(10))
    assert line == f"Missed most often, capitals aside: {expected}."


@pytest.mark.parametrize(
    "text, terms, shown",
    [
        ("*not* __bold__ [x](y) ~z~", [], r"\*not\* \_\_bold\_\_ \[x\](y) \~z\~"),
        ("1 <b> a\\b &amp; A&B it`s", [], r"1 \<b> a\\b \&amp; A&B it\`s"),
        ("a C++* b", ["C++*"], "a `C++*` b"),
        ("a `tick` b", ["`tick`"], "a `` `tick` `` b"),
        ("a x``y` b", ["x``y`"], "a ``` x``y` ``` b"),
        ("  two\r\nlines\u2028of\ttext ", ["two\r\nlines"], "`two  lines` of text"),
        ("屏幕和电池。", ["屏幕", "电池"], "`屏幕`和`电池`。"),
        ("屏幕电池好", ["屏幕", "电池"], "`屏幕电池`好"),
        ("battery life, long", ["battery", "battery life"], "`battery life`, long"),
        ("battery life, long", ["battery life", "life"], "`battery life`, long"),
    ],
)
def test_sentences_in_markdown(tmp_path, text, terms, shown):
    """Checked once against markdown-it-py: it renders the text as it was."""
    given = sentence("en_1#2", text, *terms)
    end = Span(len(text) - 1, len(text))
    write_errors(tmp_path / "errors.md", [given], [[end]])
    lines = (tmp_path / "errors.md").read_text(encoding="utf-8").splitlines()
    assert f"- `en_1#2`: {shown}" in lines


def test_unequal_numbers_of_sentences_are_refused(tmp_path):
    with pytest.raises(ValueError):
        write_errors(tmp_path / "errors.md", [sentence("a", "b")], [])

"""Column files: where the tokens and tags are, what the text becomes, and what is refused."""

import pytest

from common.errors import InputError
from text.conll import looks_like_columns, parse
from text.sentences import Sentence, Span


def read(content: str, columns: str | None = None) -> tuple[Sentence, ...]:
    return parse(content, "f.conll", lambda line: None, columns).sentences


@pytest.mark.parametrize(
    "content, columns",
    [
        ("The O\nwine B\nlist I\n\nGood O\n", None),
        ("\n\nThe\tO\nwine\tB-ASP\nlist\tI-ASP\n \t\n\nGood\tO", None),
        ("The DT O\nwine NN B-A\nlist NN I-A\n\nGood JJ O\n", None),
        ("The  DT \t O  x\nwine NN I 1\nlist NN I 2\n\nGood JJ O 0\n", None),
        ("The O\r\nwine B\r\nlist L\r\n\r\nGood O\r\n", None),
        ("The O\rwine B\rlist E\r\rGood O\r", None),
        ("O The\nB-X wine\nI-X list\n\nO Good\n", "tag,token"),
        ("O 9 The\nB-X 8 wine\nI-X 7 list\n\nO 6 Good\n", "tag pos word"),
        ("9 The O\n8 wine B-X\n7 list E-X\n\n6 Good O\n", "1,2"),
        ("9 The O\n8 wine B-X\n7 list E-X\n\n6 Good O\n", "1 -1"),
        ("The O O\nwine O B\nlist O I\n\nGood B O\n", "token, other, tag"),
    ],
)
def test_columns(content, columns):
    assert read(content, columns) == (
        Sentence("1", "The wine list", (Span(4, 13),)),
        Sentence("2", "Good"),
    )


def test_the_marks_of_documents_are_no_sentences():
    content = "-DOCSTART- -X- O\n\nThe DT O\nwine NN B\n-DOCSTART- -X- O\nGood JJ O\n"
    assert [sentence.text for sentence in read(content)] == ["The wine", "Good"]
    tabs = "-DOCSTART-\n\nNew York\tB\nx\tO\n"  # a token holds a space
    assert [sentence.text for sentence in read(tabs)] == ["New York x"]


def test_numbers_of_tokens_are_no_tokens_and_comments_no_rows():
    content = "# id = 1\n1\tThe\tDT\tO\n2\twine\tNN\tB\n\n# text\n1\tGood\tJJ\tO\n"
    assert looks_like_columns(content)
    told: list[str] = []
    found = parse(content, "f.conll", told.append).sentences
    assert found == (Sentence("1", "The wine", (Span(4, 8),)), Sentence("2", "Good"))
    assert told == [
        "f.conll: of 4 columns, from 0, 1 has the tokens and 3 the tags (--columns says otherwise)"
    ]
    with pytest.raises(InputError, match="line 2: 1 columns, but line 1 has 2"):
        read("a\tO\n#b\n")  # within a sentence
    # Parted by spaces # may be what was written, in two columns a number.
    assert read("# O\n1 B\n")[0].text == "# 1"
    assert read("1 O\n2 B\n")[0].text == "1 2"


def test_rows_of_several_words_and_of_unwritten_ones_are_no_tokens():
    rows = ["1-2\tau\t_", "1\tà\tO", "2\tle\tO", "2.1\tx\t_", "3\tvin\tB", "", "1\tBon\tO"]
    content = "\n".join(rows)
    assert looks_like_columns(content)
    assert read(content) == (Sentence("1", "à le vin", (Span(5, 8),)), Sentence("2", "Bon"))
    # Where the first column numbers nothing they are tokens.
    assert read("2-3 X O\n8.1 X B\n")[0].text == "2-3 8.1"


def test_a_wrong_tag_in_the_first_row_is_named():
    with pytest.raises(InputError, match="line 1: 'X-FOO' is no tag .* if it is a header, or name"):
        read("a X-FOO\nb O\nc B\n")
    with pytest.raises(InputError, match="line 1: 'tag' is no tag such as .*: correct it, delete"):
        read("token pos tag\na NN O\nb NN B\n")
    with pytest.raises(InputError, match="line 1: no column after the tokens' holds tags"):
        read("a NN\nb VB\n")


def test_the_first_column_of_tags_is_taken():
    assert read("a B O\nb O B\n")[0].spans == (Span(0, 1),)
    assert read("a X O\nb O B\n")[0].spans == (Span(2, 3),)


def test_offsets_of_every_scheme_and_type():
    text = "a bb ccc d eeee"
    rows = zip(text.split(), ["S-X", "B-X", "I-X", "I-Y", "I-Y"], strict=True)
    (sentence,) = read("\n".join(map(" ".join, rows)))
    assert sentence == Sentence("1", text, (Span(0, 1), Span(2, 8), Span(9, 15)))
    assert sentence.terms == ("a", "bb ccc", "d eeee")


@pytest.mark.parametrize(
    "tokens, text",
    [
        ("屏 幕 3 G 很 好", "屏幕3G很好"),
        ("用 UNK 很 好 Windows Phone 8", "用UNK很好Windows Phone8"),
        ("屏幕 很 好", "屏幕 很 好"),
        ("a b c", "a b c"),
    ],
)
def test_a_character_a_line_is_chinese_without_spaces(tokens, text):
    tags = ["B"] + ["I"] * (len(tokens.split()) - 2) + ["O"]
    (sentence,) = read("\n".join(map(" ".join, zip(tokens.split(), tags, strict=True))))
    assert sentence.text == text
    assert sentence.terms == (text[:-1].rstrip(),)


def test_tokens_that_are_spaces():
    assert read("好 O\n\u3000 O\n屏 B\n")[0] == Sentence("1", "好\u3000屏", (Span(2, 3),))
    assert read("好\tO\n \tO\n屏\tB\n")[0] == Sentence("1", "好 屏", (Span(2, 3),))
    assert read("New York\tB\nis\tO\n")[0] == Sentence("1", "New York is", (Span(0, 8),))


def test_nothing():
    assert read("\n \n\t\n") == ()


@pytest.mark.parametrize(
    "content, columns, message",
    [
        ("a O\n\nb B 1\n", None, "f.conll, line 3: 3 columns, but line 1 has 2: make them equal"),
        ("a NN\nb O\n", None, "f.conll, line 1: no column after the tokens' holds tags such as O"),
        ("a\nb\n", None, "f.conll, line 1: no column after the tokens' holds tags"),
        ("a x O\nb O b-ASP\n", None, "f.conll, line 2: 'b-ASP' is no tag such as O, B or I-ASP"),
        ("a x O\nb x B-\n", "token,-,tag", "f.conll, line 2: 'B-' is no tag such as O"),
        ("a\tO\n\tB\n", None, "f.conll, line 2: the token is missing"),
        ("a O\n", "token,pos", "--columns=token,pos must name a token and a tag column, as in"),
        ("a O\n", "word token tag", "--columns=word token tag must name a token and a tag"),
        ("a O\n", "0,1,2", "--columns=0,1,2 must name a token and a tag column, as in token,pos"),
        ("a O\n", "0,2", "--columns=0,2 does not fit f.conll, whose columns are 0 to 1"),
        ("a O\n", "token,pos,tag", "--columns=token,pos,tag does not fit f.conll, whose"),
    ],
)
def test_refused(content, columns, message):
    with pytest.raises(InputError) as error:
        read(content, columns)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content, expected",
    [
        ("a O\nb B\n", True),
        ("a x O\n\nb x B-ASP\n", True),
        ("a O\nb C\n", False),
        ("a O\nb B 1\n", False),
        ("The food is good\nO\n", False),
        ("O\nB\n", False),
        ("\n", False),
    ],
)
def test_looks_like_columns(content, expected):
    assert looks_like_columns(content) is expected

"""Tokens as offsets: what is split, what is kept, and that nothing is lost."""

import numpy as np
import pytest

from text.sentences import Span
from text.tokenizers import TOKENIZERS, characters, jieba, remove_stop_words, words

ALPHABET = list("aZé\u03b2\u0301 09._,-'’:;)(/\t\n\r\u00a0\u3000\u200b我的屏幕かナ，。😀nts<3@") + [
    "n't",
    "'re",
    "http://",
    "www.",
    ":-)",
    "1,000",
    "\r\n",
]


def split(text: str, tokenize=words) -> list[str]:
    return [text[start:end] for start, end in tokenize(text)]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", ""),
        (" \t\n", ""),
        ("The food, though, was GREAT!!", "The|food|,|though|,|was|GREAT|!|!"),
        ("didn't DON'T can’t n't ain't", "did|n't|DO|N'T|ca|n’t|n't|ai|n't"),
        ("It's they're I'd've dogs' 'tis", "It|'s|they|'re|I|'d|'ve|dogs|'|'|tis"),
        ("O'Reilly o'clock", "O|'|Reilly|o|'|clock"),
        ("wi-fi and/or AT&T", "wi|-|fi|and|/|or|AT|&|T"),
        ("4.5 1,000 $5.99, 3. 50%", "4.5|1,000|$|5.99|,|3|.|50|%"),
        ("i7 13in MP3s 1080p 2.4GHz", "i7|13in|MP3s|1080p|2.4GHz"),
        ("snake_case", "snake|_|case"),
        ("so... good. e.g. this", "so|...|good|.|e|.|g|.|this"),
        ("see http://a.com/b?c=1. (www.x.org)", "see|http://a.com/b?c=1|.|(|www.x.org|)"),
        ("nice :-) sad :( :D <3", "nice|:-)|sad|:(|:D|<3"),
        ("menu:(small) ;x", "menu|:|(|small|)|;|x"),
        ("café cafe\u0301 ναι", "café|cafe\u0301|ναι"),
        ("我爱iPhone6。很好", "我|爱|iPhone6|。|很|好"),
        ("a\u00a0b\u3000c", "a|b|c"),
    ],
)
def test_words(text, expected):
    assert "|".join(split(text)) == expected


def test_characters():
    assert split("我 爱\u3000a!\n", characters) == ["我", "爱", "a", "!"]


def test_jieba_finds_words():
    assert split("手机的屏幕 大小适中，iPhone 很好", jieba) == (
        ["手机", "的", "屏幕", "大小", "适中", "，", "iPhone", "很", "好"]
    )


def test_jieba_is_silent(capfd):
    jieba("屏幕很好")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_are_ordered_and_lose_only_white_space(name):
    random = np.random.default_rng(3)
    for _ in range(300):
        text = "".join(random.choice(ALPHABET, random.integers(0, 30)))
        tokens = TOKENIZERS[name](text)
        assert all(isinstance(token, Span) and token.start < token.end for token in tokens)
        assert all(a.end <= b.start for a, b in zip(tokens, tokens[1:], strict=False))
        parts = [text[start:end] for start, end in tokens]
        assert not any(character.isspace() for part in parts for character in part)
        assert "".join(parts) == "".join(text.split())


def test_words_part_chinese_like_characters():
    text = "信号不错，声音清晰；按键手感很好"
    assert words(text) == characters(text)


def test_remove_stop_words():
    text = "The food WAS not for The Herbfarm"
    kept = remove_stop_words(words(text), text)
    assert [text[start:end] for start, end in kept] == ["food", "Herbfarm"]
    assert remove_stop_words([], "") == []

"""Tokenizers: functions from a text to its tokens, as character offsets.

The tokens of every tokenizer are in order, do not overlap and hold no white space.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from text.sentences import Span

Tokenizer = Callable[[str], list[Span]]

# Han, kana and bopomofo: scripts written without spaces, where a character is a token.
CJK = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_LETTER = rf"[^\W\d_{CJK}]"
_REST = rf"(?:{_LETTER}|\d|[\u0300-\u036f])*"  # with the accents of decomposed letters
_WORDS = re.compile(
    rf"""
      (?:https?://|www\.)[^\s<>"{CJK}]*[^\W_]/?    # an address, without the full stop after it
    | (?<!\w)[:;=]['^o-]?[()\[\]DPp|](?!\w)       # :-) and its relatives
    | (?<!\w)<3(?!\w)
    | {_LETTER}{_REST}?(?=n['\u2019]t(?!\w))                # the did of didn't
    | n['\u2019]t(?!\w)
    | (?<=\w)['\u2019](?:s|re|ve|ll|d|m)(?!\w)
    | {_LETTER}{_REST}
    | \d+(?:[.,]\d+)*{_REST}                       # 4.5 and 1,000 and 13in
    | \.{{2,}}
    | \S                                           # punctuation, symbols, each CJK character
    """,
    re.VERBOSE | re.IGNORECASE,
)


def words(text: str) -> list[Span]:
    """Words and punctuation, for languages that put spaces between words.

    A hyphen is a token, and so are the clitics of English (didn't is did n't); i7 and 13in
    stay whole. Each Han or kana character is a token, as `characters` has it.
    """
    return [Span(*match.span()) for match in _WORDS.finditer(text)]


def characters(text: str) -> list[Span]:
    """Every character that is not white space."""
    return [Span(i, i + 1) for i, character in enumerate(text) if not character.isspace()]


def jieba(text: str) -> list[Span]:
    """Chinese words as jieba segments them (github.com/fxsjy/jieba)."""
    return [Span(start, end) for word, start, end in _segmenter().tokenize(text) if word.strip()]


@cache
def _segmenter() -> Any:
    """jieba with its own dictionary, read once, in about a second.

    The dictionary is set here because jieba's own start prints, and trusts a marshal file in
    the temporary folder, where another user could have put it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in jieba's source, and pkg_resources
        import jieba as package

        segmenter = package.Tokenizer()
        segmenter.FREQ, segmenter.total = segmenter.gen_pfdict(segmenter.get_dict_file())
    segmenter.initialized = True
    return segmenter


TOKENIZERS: dict[str, Tokenizer] = {"words": words, "jieba": jieba, "characters": characters}


def remove_stop_words(tokens: Sequence[Span], text: str) -> list[Span]:
    """The tokens that are not English stop words, scikit-learn's list, whatever their case."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return [token for token in tokens if text[slice(*token)].lower() not in ENGLISH_STOP_WORDS]

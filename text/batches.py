"""Sentences as arrays, and batches of few shapes.

An encoded split, on the devices; N sentences of at most L tokens:

    tokens  int32 [N, L]  row of the word tables (text/lexicon.py), 0 pads
    tags    int32 [N, L]  gold tags, 0 pads
    lengths int32 [N]

The rows of a batch, made on the host:

    index   int32   [B]     sentence of the split
    weight  float32 [B]     1, or 0 for padding
    epoch   int32   [B]     the epoch, counted from 0 (training only)
    column  int32   [B, T]  0 to T - 1: the shape says to how many tokens the batch is cut

`assemble` turns them, on the device, into a batch: the rows, `tokens` and `tags` [B, T] and
`lengths` [B], and the word tables whole.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax import Array

from common.batching import Rows, padded_rows, train_rows

# Every bucket is a shape to compile, which takes longer than the padding it spares, but where wide
# layers are trained for long: six instead of four, of 512 units, take 8 s more to compile and 8 to
# 11 % less time for an epoch (laptop14, batch 64, bfloat16, a Xeon with AMX), which 25 of its
# epochs make up for. There is then 0.39 of a token of padding for each token, not 0.55.
BUCKETS, WIDE_BUCKETS = 4, 6
# An epoch's sentences are sorted by their lengths and up to so many tokens by chance: so a loop
# over a batch, which ends at its longest sentence (text/recurrence.py), makes few steps of padding,
# and batches still differ from epoch to epoch.
CHANCE_TOKENS = 4
# About as many tokens, padding included, are scored in one call: bounds the memory, no score.
# More make longer calls of which more is padding.
SCORING_TOKENS = 2048

IntRows = Sequence[Sequence[int] | np.ndarray]


class Encoded(NamedTuple):
    """The arrays of a split, on the host."""

    tokens: np.ndarray
    tags: np.ndarray
    lengths: np.ndarray


def encode(tokens: IntRows, tags: IntRows, width: int) -> Encoded:
    """Pad lists of N sentences to arrays of `width` columns."""
    lengths = np.array([len(row) for row in tokens], np.int32)
    return Encoded(_pad(tokens, width), _pad(tags, width), lengths)


def _pad(rows: IntRows, width: int) -> np.ndarray:
    array = np.zeros((len(rows), width), np.int32)
    for place, row in zip(array, rows, strict=True):
        place[: len(row)] = row
    return array


def round_up(length: int) -> int:
    """The smallest usual width of at least `length` tokens: 8, 16, ... 64, 96, 128, 192, ..."""
    if length <= 64:
        return max(-(-length // 8), 1) * 8
    power = 64
    while power < length:
        power *= 2
    return power * 3 // 4 if power * 3 // 4 >= length else power


def bucket_widths(lengths: np.ndarray, count: int = BUCKETS) -> tuple[int, ...]:
    """The at most `count` usual widths that pad these sentences least.

    Args:
        lengths: int [N], tokens of each sentence.

    Returns:
        Increasing widths, of which the last holds the longest sentence.
    """
    rounded = np.array([round_up(int(length)) for length in lengths])
    if not len(rounded):
        return (round_up(0),)
    widths, counts = np.unique(rounded, return_counts=True)

    def padded(chosen: tuple[int, ...]) -> int:
        return int((np.array(chosen)[np.searchsorted(chosen, widths)] * counts).sum())

    last = int(widths[-1])
    smaller = [int(width) for width in widths[:-1]]
    choices = itertools.combinations(smaller, min(count - 1, len(smaller)))
    return min(((*chosen, last) for chosen in choices), key=padded)


def fit_width(length: int, widths: Sequence[int]) -> int:
    """The smallest of the widths that holds `length` tokens, else a usual one."""
    return next((width for width in widths if width >= length), round_up(length))


def with_columns(rows: Rows, width: int) -> Rows:
    """The rows, cut to `width` tokens."""
    column = np.broadcast_to(np.arange(width, dtype=np.int32), (len(rows["index"]), width))
    return rows | {"column": np.ascontiguousarray(column)}


def same_width(steps: Sequence[Rows]) -> list[Rows]:
    """The rows of several runs' steps, all cut to the width of the widest."""
    width = max(rows["column"].shape[1] for rows in steps)
    return [with_columns(rows, width) for rows in steps]


def epoch_batches(
    seed: int, epoch: int, lengths: np.ndarray, widths: Sequence[int], batch_size: int
) -> list[Rows]:
    """The rows of every batch of an epoch: each sentence once, similar lengths together.

    Sentences are sorted by length and some chance (`CHANCE_TOKENS`), then cut into batches, of
    which a random one is not full: it is padded with weight 0. They come in random order.
    """
    rng = np.random.default_rng((seed, epoch))
    order = np.argsort(lengths + rng.uniform(0, CHANCE_TOKENS, len(lengths))).astype(np.int32)
    full, rest = divmod(len(order), batch_size)
    sizes = [batch_size] * full
    if rest:
        sizes.insert(rng.integers(full + 1), rest)
    found = []
    for index in np.split(order, np.cumsum(sizes)[:-1]):
        width = fit_width(int(lengths[index].max()), widths)
        rows = train_rows(np.resize(index, batch_size), epoch)
        rows["weight"][len(index) :] = 0.0
        found.append(with_columns(rows, width))
    return [found[i] for i in rng.permutation(len(found))]


def scoring_batches(
    lengths: np.ndarray, widths: Sequence[int], tokens: int, multiple: int = 1
) -> list[Rows]:
    """Rows that hold every sentence once, longest first, in batches of few shapes.

    So all batches are full but the last, which is of the shortest sentences.

    Args:
        lengths: int [N].
        widths: that batches may have; a longer sentence gets a usual one.
        tokens: about this many in a batch, padding included.
        multiple: of which the sentences of every batch are one.
    """
    order = np.argsort(-lengths, kind="stable").astype(np.int32)
    found, start = [], 0
    while start < len(order):
        # The width that holds the next sentence also says how many of them make a batch.
        width = fit_width(int(lengths[order[start]]), widths)
        size = 1 << max((tokens // width).bit_length() - 1, 0)
        size = -(-size // multiple) * multiple
        index = order[start : start + size]
        start += size
        rows = next(padded_rows(len(index), size))
        found.append(with_columns(rows | {"index": index[rows["index"]]}, width))
    return found


def assemble(
    data: dict[str, Array], tables: dict[str, Array], rows: dict[str, Array]
) -> dict[str, Array]:
    """The batch of `rows`: its part of the split's `data`, and the word `tables` whole."""
    place = (rows["index"][:, None], rows["column"])
    cut = {name: data[name][place] for name in ("tokens", "tags")}
    return rows | tables | cut | {"lengths": data["lengths"][rows["index"]]}

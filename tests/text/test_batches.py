"""Batches of sentences: each once, of few shapes, padded as little as those shapes allow."""

import itertools

import numpy as np
import pytest

from text.batches import (
    assemble,
    bucket_widths,
    encode,
    epoch_batches,
    fit_width,
    round_up,
    scoring_batches,
)

LENGTHS = np.random.default_rng(5).gamma(3.0, 6.0, size=103).astype(np.int32)


def test_usual_widths_hold_the_length_and_are_few():
    widths = [round_up(length) for length in range(6000)]
    assert all(width >= length for length, width in enumerate(widths))
    assert widths == sorted(widths) and len(set(widths)) < 25
    assert [round_up(n) for n in (0, 8, 9, 64, 65, 97, 129, 5000)] == [
        8, 8, 16, 64, 96, 128, 192, 6144
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 4])
def test_buckets_pad_least_of_all_choices(count):
    widths = bucket_widths(LENGTHS, count)
    assert len(widths) <= count and list(widths) == sorted(widths)

    def columns(chosen):
        return sum(min(w for w in chosen if w >= length) for length in LENGTHS)

    usual = sorted({round_up(int(length)) for length in LENGTHS})
    others = itertools.combinations(usual[:-1], min(count, len(usual)) - 1)
    assert columns(widths) == min(columns((*other, usual[-1])) for other in others)


def test_buckets_of_one_length_of_none_and_of_an_outlier():
    assert bucket_widths(np.array([5, 6, 7])) == (8,)
    assert bucket_widths(np.array([], np.int32)) == (8,)
    assert bucket_widths(np.array([0, 3, 5000])) == (8, 6144)


def test_a_width_beyond_the_buckets_is_a_usual_one():
    assert [fit_width(n, (16, 40)) for n in (3, 16, 17, 40, 41)] == [16, 16, 40, 40, 48]


@pytest.mark.parametrize("batch_size", [1, 16, 103])
def test_an_epoch_has_every_sentence_once_in_few_shapes(batch_size):
    widths = bucket_widths(LENGTHS)
    rows = epoch_batches(3, 2, LENGTHS, widths, batch_size)
    assert len(rows) == -(-len(LENGTHS) // batch_size)
    real = [i for r in rows for i, w in zip(r["index"], r["weight"], strict=True) if w]
    assert sorted(real) == list(range(len(LENGTHS)))
    assert {r["column"].shape for r in rows} <= {(batch_size, width) for width in widths}
    for r in rows:
        assert LENGTHS[r["index"]].max() <= r["column"].shape[1]
        assert (r["column"] == np.arange(r["column"].shape[1])).all() and (r["epoch"] == 2).all()


def test_an_epoch_is_a_function_of_seed_and_number():
    def order(seed, epoch):
        rows = epoch_batches(seed, epoch, LENGTHS, (32, 96), 8)
        return np.concatenate([r["index"] for r in rows]).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2) and order(0, 1) != order(1, 1)


def test_similar_lengths_are_together_and_company_changes():
    epochs = [epoch_batches(0, epoch, LENGTHS, bucket_widths(LENGTHS), 16) for epoch in range(30)]
    steps = [LENGTHS[r["index"]].max() for rows in epochs for r in rows]
    unsorted = np.random.default_rng(0).permutation(LENGTHS)[:96].reshape(6, 16).max(axis=1)
    assert np.mean(steps) < 0.7 * unsorted.mean()
    # Seven sentences are left over by each epoch: anyone of the 103 may be.
    short = {i for rows in epochs for r in rows for i in r["index"] if not r["weight"].all()}
    assert len(short) > 50
    company = {frozenset(r["index"]) for rows in epochs for r in rows}
    assert len(company) > 0.9 * 7 * len(epochs)


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("tokens", [1, 100, 4096])
def test_scoring_holds_every_sentence_once_longest_first(tokens, multiple):
    widths = bucket_widths(LENGTHS)
    rows = scoring_batches(LENGTHS, widths, tokens, multiple)
    real = [i for r in rows for i, w in zip(r["index"], r["weight"], strict=True) if w]
    assert sorted(real) == list(range(len(LENGTHS)))
    assert (np.diff(LENGTHS[real]) <= 0).all()
    assert all(r["weight"].all() for r in rows[:-1])
    shapes = {r["column"].shape for r in rows}
    assert len(shapes) <= len(widths)
    assert all(size % multiple == 0 for size, _ in shapes)
    assert all(size * width <= max(tokens, multiple * width) for size, width in shapes)
    assert all(LENGTHS[r["index"]].max() <= r["column"].shape[1] for r in rows)


def test_scoring_of_nothing_and_of_one_long_sentence():
    assert scoring_batches(np.array([], np.int32), (8,), 10) == []
    shapes = [r["column"].shape for r in scoring_batches(np.array([5000, 3]), (), 4096)]
    assert shapes == [(1, 6144), (512, 8)]


def test_assembled_batches_are_the_sentences_cut_to_the_width():
    tokens = [[4, 5, 6], [7], [], [8, 9]]
    tags = [[0, 1, 2], [1], [], [0, 1]]
    encoded = encode(tokens, tags, 8)
    (rows,) = scoring_batches(encoded.lengths, (4,), 16, multiple=5)
    tables = {"learnt": np.array([3, 1])}
    batch = assemble(encoded._asdict(), tables, rows)
    assert (
        batch["tokens"].shape == batch["tags"].shape == (5, 4)
        and batch["learnt"] is tables["learnt"]
    )
    for place, index in enumerate(rows["index"][:4]):
        length = batch["lengths"][place]
        assert batch["tokens"][place, :length].tolist() == tokens[index]
        assert batch["tags"][place, :length].tolist() == tags[index]
        assert not batch["tokens"][place, length:].any()

import numpy as np
import pytest

from common.batching import epoch_batches, epoch_order, gather, padded_rows, steps_per_epoch
from common.errors import InputError


def test_order_is_a_function_of_seed_and_epoch():
    order = epoch_order(3, 2, 100)
    assert order.dtype == np.int32 and sorted(order) == list(range(100))
    assert (order == epoch_order(3, 2, 100)).all()
    assert (order != epoch_order(3, 3, 100)).any() and (order != epoch_order(4, 2, 100)).any()


def test_an_epoch_has_no_row_twice():
    rows = epoch_batches(seed=0, epoch=5, size=103, batch_size=10)
    assert len(rows) == steps_per_epoch(103, 10) == 10
    assert len(set(np.concatenate([r["index"] for r in rows]))) == 100
    assert all((r["epoch"] == 5).all() and (r["weight"] == 1).all() for r in rows)


@pytest.mark.parametrize("size, batch_size", [(10, 4), (12, 4), (3, 5), (0, 4)])
def test_padded_rows_hold_every_row_once(size, batch_size):
    rows = list(padded_rows(size, batch_size))
    real = [i for r in rows for i, w in zip(r["index"], r["weight"], strict=True) if w]
    assert real == list(range(size))
    assert all(len(r["index"]) == batch_size for r in rows)


def test_gather_takes_the_rows():
    data = {"label": np.array([5, 6, 7, 8])}
    rows = {"index": np.array([2, 0]), "weight": np.array([1.0, 0.0])}
    batch = gather(data, rows)
    assert list(batch["label"]) == [7, 5] and list(batch["weight"]) == [1, 0]


def test_batch_larger_than_the_data():
    with pytest.raises(InputError, match="--batch_size=11 is larger than the 10"):
        steps_per_epoch(10, 11)

"""Gradients of models and layers, whose products oneDNN makes on a CPU, are those without it.

XLA hands products and convolutions to oneDNN in jax 0.12 and later, and once took a loop's result
for zeros on the way (text/recurrence.py).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import our_steps
from common import host
from common.host import FIRST_WITH_ONEDNN, ONEDNN_FLAG
from text.models import Tagger
from text.rnn import CELLS, RNN
from text.train import make_loss_fn

pytestmark = pytest.mark.skipif(
    jax.__version_info__[:2] < FIRST_WITH_ONEDNN, reason="XLA has no oneDNN"
)


def compile_with(onednn, fn):
    return jax.jit(fn, compiler_options={ONEDNN_FLAG.removeprefix("--"): onednn})


def check(make_gradient, *args):
    """With oneDNN, no leaf is much farther from the exact gradient than without.

    Args:
        make_gradient: a type -> the function of `args` that computes in it.
    """
    exact = compile_with(False, make_gradient(jnp.float32))(*args)
    for dtype in (jnp.float32, jnp.bfloat16):
        with_it, without = (compile_with(used, make_gradient(dtype)) for used in (True, False))
        assert "__onednn$" in with_it.lower(*args).compile().as_text() or dtype == jnp.float32
        for (path, true), one, other in zip(
            jax.tree_util.tree_leaves_with_path(exact),
            *map(jax.tree.leaves, (with_it(*args), without(*args))),
            strict=True,
        ):
            error, usual = np.linalg.norm(one - true), np.linalg.norm(other - true)
            where = f"{jnp.dtype(dtype).name} {jax.tree_util.keystr(path)}"
            limit = 1.6 * usual + 1e-3 * np.linalg.norm(true)
            assert error <= limit, f"{where}: {error:.1e}, without oneDNN {usual:.1e}"


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-4), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_layers(cell, dtype, tolerance):
    """As in a run: all are arguments, none a constant, and products are large enough for it."""
    rng = np.random.default_rng(7)
    lengths = jnp.array(rng.integers(1, 41, 32), jnp.int32)
    model = RNN(cell, 128, dtype=dtype)
    x = jnp.array(rng.normal(size=(32, 40, 64)), dtype)
    params = model.init(jax.random.key(0), x, lengths, False)

    def loss(params, x, lengths):
        return (model.apply(params, x, lengths, False).astype(jnp.float32) ** 2).sum()

    with_it, without = (compile_with(used, jax.grad(loss)) for used in (True, False))
    assert "__onednn$matmul" in with_it.lower(params, x, lengths).compile().as_text()
    found, expected = with_it(params, x, lengths), without(params, x, lengths)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        error = np.abs(a - b).max() / np.abs(b).max()
        assert error < tolerance, f"{jax.tree_util.keystr(path)}: {error:.1e}"


@pytest.mark.parametrize("encoder", ["birnn", "decnn"])
def test_taggers(encoder):
    task = our_steps.tagger(128, 16, 24)
    fields = {"hidden_size": (256, 128), "embedding_size": 100, "crf": True, "encoder": encoder}
    batch = {**task.tables, **task.batch, "lengths": np.arange(9, 25, dtype=np.int32)}
    params = Tagger(3, **fields).init(jax.random.key(0), batch)["params"]

    def make_gradient(dtype):
        loss_fn = make_loss_fn(Tagger(3, **fields, dtype=dtype))
        return jax.grad(lambda params, batch: loss_fn(params, {}, batch, jax.random.key(1))[0])

    check(make_gradient, params, batch)


@pytest.mark.parametrize("name", ["resnet18", "airbench"])
def test_classifiers(name, monkeypatch):
    for condition in ("onednn_is_used", "has_bfloat16"):  # of the forms that it wants
        monkeypatch.setattr(host, condition, lambda: True)
    make_task = partial(our_steps.classifier, name, 16)
    state = make_task().init(jax.random.key(0))

    def make_gradient(dtype):
        loss_fn = make_task(dtype=dtype).loss_fn
        return jax.grad(lambda params, *rest: loss_fn(params, *rest, jax.random.key(1))[0])

    check(make_gradient, state.params, state.batch_stats, dict(make_task().batch))

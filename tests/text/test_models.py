"""Taggers: shapes, padding and learning of every member; embeddings and encoders by oracle."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError

from common.errors import InputError
from common.parallel import local_devices
from common.state import count_parameters
from text import crf
from text.models import CHAR_ENCODERS, DECNN, ENCODERS, CharCNN, CharLSTM, Tagger, embed_words
from text.rnn import CELLS, MERGES, RNN

KEY = jax.random.key(0)
B, T, K, V, D, R, W, F = 4, 7, 3, 11, 5, 6, 6, 4
LENGTHS = np.array([7, 0, 1, 4], np.int32)
REAL = np.arange(T) < LENGTHS[:, None]
SIZES: dict[str, Any] = {"num_tags": K, "learnt_words": R, "embedding_size": D, "num_chars": 9}
SMALL = SIZES | {"hidden_size": (4,), "char_size": 3, "char_features": 6}
MEMBERS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "rnn_sum": {"cell": "rnn", "merge": "sum", "hidden_size": (4, 3)},
    "gru_one_direction": {"cell": "gru", "bidirectional": False, "learnt_words": 0},
    "decnn": {"encoder": "decnn"},
    "char_cnn": {"char_encoder": "cnn", "crf": True},
    "all": {"encoder": "decnn", "char_encoder": "lstm", "shape_features": True, "crf": True},
}
DROPOUTS = ("embedding_dropout", "recurrent_dropout", "output_dropout", "word_dropout")


def make_batch():
    """Sentences and tables; word 0 is padding, words 1, 4, 7 and 10 have fixed vectors."""
    rng = np.random.default_rng(7)
    word = np.arange(V)
    chars = rng.integers(1, 9, (V, W)).astype(np.int32)
    return {
        "tokens": np.where(REAL, rng.integers(1, V, (B, T)), 0).astype(np.int32),
        "tags": rng.integers(0, K, (B, T)).astype(np.int32),
        "lengths": LENGTHS,
        "learnt": np.where((word == 0) | (word % 3 == 1), -1, word % R).astype(np.int32),
        "vectors": rng.normal(size=(V, D)).astype(np.float32),
        # From no character to all W of them.
        "chars": np.where(np.arange(W) < (word % (W + 1))[:, None], chars, 0),
        "shapes": rng.normal(size=(V, F)).astype(np.float32),
    }


BATCH = make_batch()


def draw(shapes, seed=1):
    """Random parameters that keep the scale of what enters a layer; no bias is 0."""
    rng = np.random.default_rng(seed)

    def leaf(shape):
        scale = np.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else 0.3
        return rng.normal(scale=scale, size=shape).astype(np.float32)

    return jax.tree.map(lambda s: leaf(s.shape), shapes)


@cache
def make(**options):
    """A tagger and random variables."""
    model = Tagger(**SMALL | options)
    return model, draw(jax.eval_shape(model.init, KEY, BATCH))


@partial(jax.jit, static_argnames=("model", "train"))
def run(model, variables, batch, key=KEY, train=False):
    return model.apply(variables, batch, train, rngs={"dropout": key})[0]


@partial(jax.jit, static_argnames="model")
@partial(jax.value_and_grad, argnums=1, has_aux=True)
def grad(model, params, batch):
    """((loss, emissions), gradients by the parameters)."""
    emissions, transitions = model.apply({"params": params}, batch)
    losses = crf.loss(transitions, emissions, batch["tags"], batch["lengths"])
    return losses.sum(), emissions


def test_every_choice_is_in_a_member():
    models = [Tagger(**SMALL | options) for options in MEMBERS.values()]
    assert {m.encoder for m in models} == set(ENCODERS)
    assert {m.cell for m in models} == set(CELLS) and {m.merge for m in models} == set(MERGES)
    assert {m.char_encoder for m in models} == {None, *CHAR_ENCODERS}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", MEMBERS)
def test_emissions_and_parameters_are_float32(name, dtype):
    model = Tagger(**SMALL | MEMBERS[name], dtype=dtype)
    (emissions, params), variables = jax.eval_shape(partial(model.init_with_output, KEY), BATCH)
    assert (emissions.shape, emissions.dtype) == ((B, T, K), jnp.float32)
    assert [(p.shape, p.dtype) for p in params] == [(s, jnp.float32) for s in ((K, K), (K,), (K,))]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    assert ("crf" in variables["params"]) == model.crf


def test_bfloat16_is_near_float32():
    model, variables = make(**MEMBERS["all"])
    half, whole = (run(model.clone(dtype=d), variables, BATCH) for d in (jnp.bfloat16, jnp.float32))
    assert 0 < np.abs(half - whole)[REAL].max() < 0.03 * np.abs(whole).max()


@pytest.mark.parametrize("name", MEMBERS)
def test_padding_changes_nothing(name):
    """Neither its amount nor what stands there."""
    model, variables = make(**MEMBERS[name])
    (loss, emissions), grads = jax.device_get(grad(model, variables["params"], BATCH))
    bad = {name: BATCH[name].copy() for name in ("vectors", "shapes")}
    bad["vectors"][0] = bad["shapes"][0] = np.nan
    (found_loss, found), found_grads = grad(model, variables["params"], BATCH | bad)
    jax.tree.map(np.testing.assert_array_equal, (found_loss, found_grads), (loss, grads))
    np.testing.assert_array_equal(found[REAL], emissions[REAL])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, grads)))
    alone = {"tokens": BATCH["tokens"][3:, :4], "lengths": LENGTHS[3:]}
    alone["chars"] = np.pad(BATCH["chars"], ((0, 0), (0, 2)))
    found = run(model, variables, BATCH | alone)
    np.testing.assert_allclose(found[0], emissions[3, :4], atol=1e-5)


@pytest.mark.parametrize("name", MEMBERS)
def test_every_parameter_learns(name):
    model, variables = make(**MEMBERS[name])
    params, losses = variables["params"], []
    for _ in range(20):
        (loss, _), grads = jax.device_get(grad(model, params, BATCH))
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
            assert leaf.any(), jax.tree_util.keystr(path)
        rate = 0.2 / np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(grads)))
        params = jax.tree.map(lambda p, g, rate=rate: p - rate * g, params, grads)
        losses.append(loss)
    assert losses[-1] < 0.8 * losses[0]


def test_embeddings_are_learnt_rows_or_fixed_vectors():
    rng = np.random.default_rng(2)
    table, scale = rng.normal(size=(R, D)).astype(np.float32), rng.normal(size=(B, T, D))
    kept = rng.random((B, T)) < 0.7
    expected, by_row = np.zeros((B, T, D), np.float32), np.zeros((R, D), np.float32)
    for b, t in np.ndindex(B, T):
        word = BATCH["tokens"][b, t]
        row = BATCH["learnt"][word] if kept[b, t] else 0
        expected[b, t] = table[row] if row >= 0 else BATCH["vectors"][word]
        if row >= 0:
            by_row[row] += scale[b, t]

    def loss(table, vectors):
        found = embed_words(table, BATCH | {"vectors": vectors}, jnp.asarray(kept))
        return (found * scale).sum(), found

    grads, found = jax.grad(loss, argnums=(0, 1), has_aux=True)(table, BATCH["vectors"])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(grads[0], by_row, atol=1e-5)
    assert not grads[1].any()


def test_frozen_embeddings_are_fixed_vectors_or_0():
    kept = np.random.default_rng(2).random((B, T)) < 0.7
    batch = {name: BATCH[name] for name in ("tokens", "vectors")}
    found = embed_words(None, batch, jnp.asarray(kept))
    np.testing.assert_array_equal(found, kept[:, :, None] * BATCH["vectors"][BATCH["tokens"]])


def test_frozen_embeddings_need_no_gradient_of_the_encoders_input():
    def products(**options):
        model, variables = make(**options)
        return str(jax.make_jaxpr(partial(grad, model))(variables["params"], BATCH)).count("dot_g")

    # One for each direction of the first layer.
    assert products(learnt_words=R) - products(learnt_words=0) == 2


@pytest.mark.parametrize("learnt_words", [R, 0])
def test_word_dropout_puts_the_unknown_word(learnt_words):
    model, variables = make(word_dropout=0.3, learnt_words=learnt_words)
    count = 200
    word = np.resize([1, 2, 3], (count, 1)).astype(np.int32)  # a fixed one and two learnt ones
    batch = BATCH | {"tokens": word, "lengths": np.ones(count, np.int32)}
    unknown = batch | {"learnt": np.zeros(V, np.int32), "vectors": BATCH["vectors"] * 0}
    found, own, other = (
        np.asarray(run(model, variables, b, KEY, train))
        for b, train in ((batch, True), (batch, False), (unknown, False))
    )
    kept, replaced = ((found == x).all(axis=(1, 2)) for x in (own, other))
    assert (kept ^ replaced).all()
    # The share of 200 draws has a deviation of 0.03.
    assert abs(replaced.mean() - 0.3) < 0.12
    assert all(0 < replaced[start::3].mean() < 1 for start in range(3))


@pytest.mark.parametrize(
    "encoder, option", [*(("birnn", option) for option in DROPOUTS), ("decnn", "output_dropout")]
)
def test_dropout_is_by_key_and_for_training_only(encoder, option):
    model, variables = make(encoder=encoder, **{option: 0.4})
    one, again = (run(model, variables, BATCH, KEY, True) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert (one != run(model, variables, BATCH, jax.random.key(1), True)).any()
    # Without a key nothing can be drawn.
    jax.eval_shape(partial(model.apply, train=False), variables, BATCH)
    with pytest.raises(InvalidRngError):
        jax.eval_shape(partial(model.apply, train=True), variables, BATCH)
    # On several devices the place in the whole batch is asked for.
    parts = model.clone(axis_name="devices")
    with pytest.raises(NameError, match="unbound axis name: devices"):
        jax.eval_shape(partial(parts.apply, train=True, rngs={"dropout": KEY}), variables, BATCH)


def test_several_devices_draw_the_masks_of_one():
    rng = np.random.default_rng(6)
    rows = {"tokens": rng.integers(1, V, (8, T)), "lengths": np.full(8, T, np.int32)}
    tables = {name: BATCH[name] for name in ("learnt", "vectors")}
    devices = local_devices(2)
    model, variables = make(**dict.fromkeys(DROPOUTS, 0.3))
    parts = model.clone(axis_name=devices.axis_name)

    def fn(key, variables, tables, rows):
        return run(parts, variables, rows | tables, key, True)

    replicated = (devices.replicate(x) for x in (KEY, variables, tables))
    found = devices.unshard(devices.compile(fn)(*replicated, devices.shard(rows)))
    np.testing.assert_allclose(found, run(model, variables, rows | tables, KEY, True), atol=1e-5)


def slow_conv(x, conv):
    """A "same" convolution of one sequence [T, D], a step at a time."""
    kernel = conv["kernel"]
    half = len(kernel) // 2
    padded = np.pad(x, ((half, half), (0, 0)))
    windows = [padded[t : t + len(kernel)] for t in range(len(x))]
    return np.array([np.einsum("wd,wdf->f", w, kernel) for w in windows]) + conv["bias"]


def test_decnn_by_a_slow_loop():
    encoder = DECNN(output_dropout=0.5, dtype=jnp.float32, axis_name=None)
    apply = jax.jit(partial(encoder.apply, train=False))
    x = np.random.default_rng(3).normal(size=(B, T, D)).astype(np.float32)
    params = draw(jax.eval_shape(partial(encoder.init, train=False), KEY, x, LENGTHS))["params"]
    found = apply({"params": params}, x, LENGTHS)
    layers = [("layer1_width5", "layer1_width3"), *((f"layer{i}_width5",) for i in (2, 3, 4))]
    for b in np.flatnonzero(LENGTHS):
        y = x[b, : LENGTHS[b]]
        for layer in layers:
            y = np.concatenate([slow_conv(y, params[part]) for part in layer], axis=-1)
            y = np.maximum(y, 0)
        assert y.shape == (LENGTHS[b], 256)
        np.testing.assert_allclose(found[b, : LENGTHS[b]], y, atol=1e-5)


CHARS: dict[str, Any] = {"num_chars": 9, "char_size": 3, "char_features": 6, "dtype": jnp.float32}


def encode_words(encoder):
    """(parameters, words [V, 6]) of the batch's words."""
    variables = draw(jax.eval_shape(encoder.init, KEY, BATCH["chars"]))
    return variables["params"], np.asarray(jax.jit(encoder.apply)(variables, BATCH["chars"]))


def test_char_cnn_by_a_slow_loop():
    params, found = encode_words(CharCNN(**CHARS))
    for word, chars in zip(found, BATCH["chars"], strict=True):
        x = params["embedding"][chars[chars > 0]]
        expected = slow_conv(x, params["conv"]).max(axis=0) if len(x) else np.zeros(6)
        np.testing.assert_allclose(word, expected, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_char_lstm_has_the_last_states_of_both_directions(monkeypatch, device):
    """On an accelerator both directions are one loop."""
    monkeypatch.setattr(jax, "default_backend", lambda: device)
    params, found = encode_words(CharLSTM(**CHARS))
    x, lengths = params.pop("embedding")[BATCH["chars"]], (BATCH["chars"] > 0).sum(axis=1)
    outputs = np.asarray(jax.jit(RNN("lstm", 3).apply)({"params": params}, x, lengths))
    last = outputs[np.arange(V), np.maximum(lengths - 1, 0), :3]
    np.testing.assert_allclose(found, np.concatenate([last, outputs[:, 0, 3:]], -1), atol=1e-6)
    assert not found[lengths == 0].any() and found[lengths > 0].all()


@pytest.mark.parametrize("char_encoder, features", [(None, 0), ("cnn", 50), ("lstm", 50)])
def test_counts(char_encoder, features):
    model = Tagger(**SIZES, char_encoder=char_encoder, shape_features=True, crf=True)
    params = jax.eval_shape(model.init, KEY, BATCH)["params"]
    D_in, H = D + features + F, 128
    assert count_parameters(params["encoder"]) == 4 * (D_in * H + H * H + H) * 2
    assert count_parameters(params["head"]) == (2 * H + 1) * K
    assert count_parameters(params["crf"]) == K * K + 2 * K
    chars = {None: 0, "cnn": (3 * 25 + 1) * 50, "lstm": 4 * (25 * 25 + 25 * 25 + 25) * 2}
    if char_encoder:
        assert count_parameters(params["chars"]) == 9 * 25 + chars[char_encoder]


def test_what_is_not_asked_for_is_not_read_and_not_learnt():
    batch = {name: BATCH[name] for name in ("tokens", "lengths", "vectors")}
    model, variables = make(learnt_words=0)
    assert set(variables["params"]) == {"encoder", "head"}
    _, transitions = jax.jit(model.apply)(variables, batch)
    assert not any(np.asarray(part).any() for part in transitions)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"encoder": "bert"}, "--model=bert is unknown: choose one of birnn, decnn"),
        ({"char_encoder": "gru"}, "--chars=gru is unknown: choose one of cnn, lstm"),
        ({"cell": "elman"}, "--cell=elman is unknown: choose one of rnn, lstm, gru"),
        ({"merge": "mean"}, "--merge=mean is unknown: choose one of concat, sum"),
    ],
)
def test_errors_list_the_choices(options, message):
    with pytest.raises(InputError, match=message):
        jax.eval_shape(Tagger(**SMALL | options).init, KEY, BATCH)

"""Every optimiser against its formula in numpy, three steps."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common.errors import InputError
from common.optim import DIRECTIONS, kernel_mask, make_optimizer, make_schedule

RATE, MOMENTUM = 0.1, 0.8


def params():
    rng = np.random.default_rng(0)
    return {
        "conv": {"kernel": rng.normal(size=(3, 3, 2, 4)), "bias": rng.normal(size=4)},
        "head": {"kernel": rng.normal(size=(4, 2)), "bias": rng.normal(size=2)},
        "norm": {"scale": rng.normal(size=4)},
    }


def leaves(tree, path=()):
    """(path, float32 array) of every leaf."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), np.asarray(value, np.float32)


def gradient(value, t):
    return 0.3 * value + np.float32(0.1 * t)


def reference(name, value, decay=0.0, l2=0.0):
    """The leaf after three steps, by the textbook."""
    w, m, v = value.astype(np.float64), 0.0, 0.0
    for t in (1, 2, 3):
        g = gradient(w, t) + 2 * l2 * w
        if name == "sgd":
            step = g
        elif name in ("momentum", "nesterov", "muon"):
            m = MOMENTUM * m + g
            step = m if name == "momentum" else g + MOMENTUM * m
        elif name in ("adam", "adamw"):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        else:
            v = 0.9 * v + 0.1 * g * g
            step = g / (np.sqrt(v) + 1e-7)
        w = w - RATE * (step + decay * w)
    return w


def newton_schulz(matrix):
    """Nearly orthogonal, by five steps of Muon's polynomial."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def muon_reference(value, decay, l2):
    """The filters after three steps, each from the norm sqrt(K)."""
    w, m = value.astype(np.float64), 0.0
    for t in (1, 2, 3):
        g = gradient(w, t) + 2 * l2 * w
        m = MOMENTUM * m + (1 - MOMENTUM) * g
        ahead = MOMENTUM * m / (1 - MOMENTUM ** (t + 1)) + (1 - MOMENTUM) * g / (1 - MOMENTUM**t)
        step = newton_schulz(ahead.reshape(-1, w.shape[-1]).T).T.reshape(w.shape)
        w = w * np.sqrt(w.shape[-1]) / np.linalg.norm(w) - RATE * (step + decay * w)
    return w


def after_three_steps(tx):
    tree = {a: {b: jnp.asarray(x, jnp.float32) for b, x in d.items()} for a, d in params().items()}
    state = tx.init(tree)
    for t in (1, 2, 3):
        grads = {a: {b: gradient(x, t) for b, x in d.items()} for a, d in tree.items()}
        updates, state = tx.update(grads, state, tree)
        tree = optax.apply_updates(tree, updates)
    return dict(leaves(tree))


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("decay, l2", [(0.0, 0.0), (0.05, 0.0), (0.0, 0.02)])
def test_three_steps(name, decay, l2):
    schedule = make_schedule("constant", RATE, 10)
    tx = make_optimizer(name, schedule, momentum=MOMENTUM, weight_decay=decay, l2=l2)
    found = after_three_steps(tx)
    for path, value in leaves(params()):
        is_kernel, is_conv = path[-1] == "kernel", path == ("conv", "kernel")
        expected = reference(name, value, decay * is_kernel, l2 * is_conv)
        if name == "muon" and is_conv:
            expected = muon_reference(value, decay, l2)
        np.testing.assert_allclose(found[path], expected, rtol=1e-4, atol=1e-5)


def test_groups_have_rates_of_their_own():
    schedule = make_schedule("constant", RATE, 10)
    base = make_optimizer("sgd", schedule)
    tx = make_optimizer("sgd", schedule, kernel_rate=2.0, bias_rate=0.0)
    once, found = after_three_steps(base), after_three_steps(tx)
    start = dict(leaves(params()))
    conv, head = ("conv", "kernel"), ("head", "kernel")
    np.testing.assert_array_equal(found[conv], once[conv])
    assert not np.allclose(found[head], once[head])
    for path in set(start) - {conv, head}:
        np.testing.assert_array_equal(found[path], start[path])


def test_adamw_decays_by_default_and_adam_does_not():
    schedule = make_schedule("constant", RATE, 10)
    start = dict(leaves(params()))[("head", "kernel")]
    for name, decay in [("adam", 0.0), ("adamw", 0.01)]:
        found = after_three_steps(make_optimizer(name, schedule))[("head", "kernel")]
        np.testing.assert_allclose(found, reference(name, start, decay), rtol=1e-4, atol=1e-5)


def test_clip_bounds_the_global_norm():
    tx = make_optimizer("sgd", make_schedule("constant", 1.0, 10), clip=0.5)
    grads = {"a": {"kernel": jnp.full((2, 2), 3.0)}, "b": {"kernel": jnp.full(5, -4.0)}}
    updates, _ = tx.update(grads, tx.init(grads), grads)
    norm = np.sqrt(sum((np.asarray(u["kernel"]) ** 2).sum() for u in updates.values()))
    assert norm == pytest.approx(0.5, rel=1e-6)


def test_mask_takes_kernels_only():
    assert kernel_mask(params()) == {
        "conv": {"kernel": True, "bias": False},
        "head": {"kernel": True, "bias": False},
        "norm": {"scale": False},
    }
    assert kernel_mask(params(), conv_only=True)["head"]["kernel"] is False


@pytest.mark.parametrize(
    "name, points",
    [
        ("constant", {0: 2.0, 99: 2.0}),
        ("step", {0: 2.0, 49: 2.0, 51: 0.2, 76: 0.02}),
        ("linear", {0: 2.0, 25: 1.5, 100: 0.0}),
        ("cosine", {0: 2.0, 50: 1.0, 100: 0.0}),
        ("one_cycle", {0: 0.08, 30: 2.0, 100: 0.0}),
    ],
)
def test_schedules(name, points):
    schedule = make_schedule(name, 2.0, 100)
    for step, rate in points.items():
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5, abs=1e-4)


def test_warm_up_rises_then_follows():
    schedule = make_schedule("cosine", 1.0, 110, warmup_steps=10)
    rates = [float(schedule(step)) for step in (0, 5, 10, 60, 110)]
    np.testing.assert_allclose(rates, [0, 0.5, 1, 0.5, 0], atol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: make_schedule("square", 1.0, 10), "--schedule=square is unknown.*one_cycle"),
        (lambda: make_schedule("one_cycle", 1.0, 10, warmup_steps=2), "--warmup_epochs"),
        (lambda: make_schedule("cosine", 1.0, 10, warmup_steps=10), "--warmup_epochs"),
        (lambda: make_optimizer("lion", lambda step: 1.0), "--optimizer=lion.*rmsprop"),
    ],
)
def test_errors_name_the_flag(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("shape", [(3, 2, 4), (3, 3, 2, 4), None])
def test_muon_takes_filters_of_any_rank_and_none(shape):
    tree = {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
    if shape:
        tree["conv"] = {"kernel": jnp.arange(1.0, np.prod(shape) + 1).reshape(shape)}
    tx = make_optimizer("muon", make_schedule("constant", RATE, 10))
    updates, _ = tx.update(tree, tx.init(tree), tree)
    assert all(np.isfinite(u).all() and (u != 0).any() for _, u in leaves(updates))

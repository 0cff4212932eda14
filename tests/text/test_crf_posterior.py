"""Entropy, pairs of tags and draws of `text.crf`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.reference import (
    crf_entropy,
    crf_forward_entropy,
    crf_pair_marginals,
    crf_paths,
    crf_probabilities,
)
from tests.text.test_crf import (
    LENGTHS,
    LONG,
    METHODS,
    check_same,
    choices,
    close,
    make_allowed,
    make_large,
    make_problem,
    oracles,
    real_steps,
)
from text import crf
from text.crf_posterior import tag_at

entropy = jax.jit(crf.entropy, static_argnames="method")
pair_marginals = jax.jit(crf.pair_marginals)
sample = jax.jit(crf.sample, static_argnames="n")
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


def make_batch(seed, K, lengths=LENGTHS, T=5):
    """(params, emissions, lengths); garbage in the padding."""
    params, emissions, _, lengths = make_problem(seed, K, lengths, T)
    return params, emissions, lengths


def sentences(params, emissions, lengths, allowed=None):
    """For each sentence its oracle."""
    tags = np.zeros(emissions.shape[:2], int)
    return [oracle for oracle, _ in oracles(params, emissions, tags, lengths, allowed=allowed)]


def check_pairs(found, oracle):
    """A sentence's pairs against enumeration; nothing in the padding."""
    inside = max(len(oracle.emissions) - 1, 0)
    check_same(found[:inside], crf_pair_marginals(oracle))
    assert not found[inside:].any()


def total_grads(function, params, emissions):
    """The gradients by parameters and emissions of a function's sum, whatever it weighs."""

    @jax.jit
    def total(params, emissions):
        found = function(params, emissions)
        return (found * jnp.cos(jnp.arange(found.size)).reshape(found.shape)).sum()

    return jax.grad(total, (0, 1))(params, emissions)


FUNCTIONS = {
    "scan": partial(entropy, method="scan"),
    "parallel": partial(entropy, method="parallel"),
    "pairs": pair_marginals,
}


@pytest.mark.parametrize("K", [1, 3])
def test_entropy_and_pairs_equal_enumeration(K):
    batch = make_batch(K, K)
    for allowed in choices(K):
        scan, parallel = (entropy(*batch, allowed=allowed, method=m) for m in METHODS)
        pairs = np.asarray(pair_marginals(*batch, allowed=allowed))
        assert scan.dtype == pairs.dtype == jnp.float32
        assert pairs.shape == (len(LENGTHS), 4, K, K)
        assert scan.min() >= 0 and parallel.min() >= 0 and pairs.min() >= 0
        expected = sentences(*batch, allowed)
        check_same(np.asarray(scan), np.array([crf_entropy(oracle) for oracle in expected]))
        check_same(np.asarray(parallel), np.asarray(scan))
        for found, oracle in zip(pairs, expected, strict=True):
            check_pairs(found, oracle)


@pytest.mark.parametrize("allowed", choices(3))
def test_pairs_sum_to_marginals_and_to_the_gradient_by_transitions(allowed):
    params, emissions, lengths = make_batch(5, 3)
    pairs = np.asarray(pair_marginals(params, emissions, lengths, allowed=allowed))
    marginals = np.asarray(crf.marginals(params, emissions, lengths, allowed=allowed))
    inside = real_steps(emissions, lengths)[:, 1:, None]
    check_same(pairs.sum(axis=3), marginals[:, :-1] * inside)
    check_same(pairs.sum(axis=2), marginals[:, 1:])

    def total(params):
        found = crf.log_partition(params, emissions, lengths, allowed=allowed)
        return jnp.where(jnp.isfinite(found), found, 0.0).sum()

    check_same(pairs.sum(axis=(0, 1)), np.asarray(jax.grad(total)(params).transitions))


@pytest.mark.parametrize("method", METHODS)
def test_the_entropy_of_zero_scores_counts_the_paths(method):
    params, emissions, lengths = make_batch(0, 3, LONG, 5000)
    params, emissions = jax.tree.map(np.zeros_like, (params, emissions))
    found = entropy(params, emissions, lengths, method=method)
    close(found, LONG * np.log(3), rtol=1e-5)


def test_entropy_is_the_mean_surprisal_of_all_paths():
    params, emissions, _ = make_batch(3, 3, np.array([4]), 4)
    tags = np.array(list(np.ndindex(3, 3, 3, 3)), np.int32)
    everywhere = np.broadcast_to(emissions, (81, 4, 3))
    surprisal = crf.loss(params, everywhere, tags, np.full(81, 4))
    found = entropy(params, emissions, np.array([4]))
    close(found[0], (np.exp(-surprisal) * surprisal).sum(), rtol=1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_path_is_allowed(name):
    params, emissions, lengths = make_batch(1, 3)
    allowed = make_allowed(3)._replace(end=np.zeros(3, bool))
    function = partial(FUNCTIONS[name], lengths=lengths, allowed=allowed)
    assert not np.asarray(function(params, emissions)).any()
    grads = total_grads(function, params, np.nan_to_num(emissions))
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(grads))
    assert not np.asarray(sample(params, emissions, lengths, KEY, n=3, allowed=allowed)).any()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients(name):
    params, emissions, lengths = make_batch(9, 3, np.array([3, 0, 2]), 3)
    emissions[0, 1, 2] = -np.inf
    function = partial(FUNCTIONS[name], lengths=lengths, allowed=choices(3)[1])
    args = params, np.nan_to_num(emissions)
    check_grads(function, args, order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("allowed", choices(3)[:2])
def test_infinite_scores_and_padding_leave_gradients_finite(name, allowed):
    params, emissions, lengths = make_batch(18, 3)
    params.transitions[:, 2] = emissions[4, 2, 1] = -np.inf
    expected = sentences(params, emissions, lengths, allowed)
    function = partial(FUNCTIONS[name], lengths=lengths, allowed=allowed)
    found = np.asarray(function(params, emissions))
    if name == "pairs":
        for pairs, oracle in zip(found, expected, strict=True):
            check_pairs(pairs, oracle)
    else:
        check_same(found, np.array([crf_entropy(oracle) for oracle in expected]))
    grads = total_grads(function, params, emissions)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
    assert not np.asarray(grads[1])[~real_steps(emissions, lengths)].any()


def test_both_ways_have_the_same_gradient():
    params, emissions, lengths = make_batch(11, 3, np.array([40, 17, 1]), 40)
    emissions = np.nan_to_num(emissions)
    scan, parallel = (
        total_grads(partial(FUNCTIONS[m], lengths=lengths), params, emissions) for m in METHODS
    )
    check_same(parallel, scan, 1e-4)


def test_training_with_entropy_makes_tags_surer():
    params, emissions, lengths = make_batch(12, 3)
    emissions = jnp.nan_to_num(emissions)
    step = jax.jit(jax.value_and_grad(lambda e: crf.entropy(params, e, lengths).sum()))
    found = []
    for _ in range(30):
        value, grads = step(emissions)
        found.append(float(value))
        emissions -= 0.3 * grads
    assert all(after < before for before, after in zip(found[:-1], found[1:], strict=True))


def test_large_scores():
    params, emissions, _, lengths = make_large(5)
    pairs = np.asarray(pair_marginals(params, emissions, lengths))
    for method in METHODS:
        found = entropy(params, emissions, lengths, method=method)
        expected = [crf_entropy(oracle) for oracle in sentences(params, emissions, lengths)]
        close(found, expected, atol=0.05)
    for found, oracle in zip(pairs, sentences(params, emissions, lengths), strict=True):
        close(found[: max(len(oracle.emissions) - 1, 0)], crf_pair_marginals(oracle), atol=1e-3)


@pytest.mark.parametrize("constant", [0, 1e4])
@pytest.mark.parametrize("method", METHODS)
def test_five_thousand_steps_keep_their_digits(constant, method):
    params, emissions, lengths = make_batch(14, 3, LONG, 5000)
    batch = params, emissions + np.float32(constant), lengths
    expected = [crf_forward_entropy(oracle) for oracle in sentences(*batch)]
    close(entropy(*batch, method=method), expected, rtol=1e-5, atol=1e-5)


def test_five_thousand_large_steps():
    """The scores reach 1e8, of which float32 has no decimals; step by step none are subtracted."""
    params, emissions, _, lengths = make_large(5000)
    expected = [crf_forward_entropy(oracle) for oracle in sentences(params, emissions, lengths)]
    close(entropy(params, emissions, lengths, method="scan"), expected, rtol=1e-4, atol=1e-4)
    parallel = entropy(params, emissions, lengths, method="parallel")
    assert np.isfinite(parallel).all() and (parallel >= 0).all()
    for name in FUNCTIONS:
        function = partial(FUNCTIONS[name], lengths=lengths)
        grads = total_grads(function, params, np.nan_to_num(emissions))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_a_constant_added_to_a_step_changes_nothing():
    params, emissions, lengths = make_batch(7, 3)
    constants = np.array([0.5, -3, 1e4, 7, -1e4], np.float32)[:, None]
    moved = emissions + constants
    back = moved - constants  # as it was rounded
    for function in FUNCTIONS.values():
        first, second = (function(params, e, lengths) for e in (back, moved))
        close(second, first, rtol=1e-5, atol=1e-6)


def test_pairs_of_five_thousand_steps_sum_to_one():
    params, emissions, lengths = make_batch(14, 3, LONG, 5000)
    sums = pair_marginals(params, emissions, lengths).sum(axis=(2, 3))
    close(sums, real_steps(emissions, lengths)[:, 1:], atol=1e-4)


def test_padding_and_batch_change_nothing():
    params, emissions, lengths = make_batch(6, 3)
    clean = np.nan_to_num(emissions, nan=3.0)
    for function in (entropy, pair_marginals, partial(sample, key=KEY, n=4)):
        found = np.asarray(function(params, emissions, lengths))
        np.testing.assert_array_equal(found, function(params, clean, lengths))
    longer = np.pad(emissions, ((0, 2), (0, 3), (0, 0)), constant_values=np.nan)
    more = np.concatenate([lengths, [0, 0]])
    close(entropy(params, longer, more)[:7], entropy(params, emissions, lengths), rtol=1e-6)
    pairs = pair_marginals(params, longer, more)
    close(pairs[:7, :4], pair_marginals(params, emissions, lengths), rtol=1e-5)
    drawn = sample(params, longer, more, KEY, n=4)
    np.testing.assert_array_equal(drawn[:7, :, :5], sample(params, emissions, lengths, KEY, n=4))
    assert not drawn[7:].any() and not drawn[:, :, 5:].any()


@pytest.mark.parametrize("B, T, K", [(0, 3, 3), (2, 0, 3), (2, 1, 3), (2, 1, 1)])
def test_empty_batches_and_sentences_of_no_or_one_step(B, T, K):
    params, emissions, lengths = make_batch(19, K, np.full(B, T), T)
    for method in METHODS:
        found = entropy(params, emissions, lengths, method=method)
        expected = [crf_entropy(oracle) for oracle in sentences(params, emissions, lengths)]
        close(found, expected, atol=1e-6)
    assert pair_marginals(params, emissions, lengths).shape == (B, max(T - 1, 0), K, K)
    drawn = sample(params, emissions, lengths, KEY, n=2)
    assert drawn.shape == (B, 2, T) and drawn.dtype == jnp.int32
    for function in FUNCTIONS.values():
        grads = total_grads(partial(function, lengths=lengths), params, emissions)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_what_is_no_number_at_a_real_step_makes_its_sentence_none():
    params, emissions, lengths = make_batch(24, 3)
    emissions[2, 1, 0] = emissions[4, 3, 0] = np.nan  # the latter at the last step
    bad = np.isin(np.arange(7), [2, 4])
    for method in METHODS:
        found = np.isnan(entropy(params, emissions, lengths, method=method))
        np.testing.assert_array_equal(found, bad)
    pairs = np.isnan(pair_marginals(params, emissions, lengths))
    np.testing.assert_array_equal(pairs.any(axis=(1, 2, 3)), bad)
    assert pairs[2].all() and pairs[4, :3].all()


def test_parameters_that_are_no_number_spare_sentences_without_them():
    """A transition is none of a sentence of one step, and an end of one without steps."""
    params, emissions, lengths = make_batch(25, 3)
    for name, spared in {"transitions": lengths < 2, "end": lengths < 1}.items():
        bad = params._replace(**{name: np.full_like(getattr(params, name), np.nan)})
        for method in METHODS:
            found = np.isnan(entropy(bad, emissions, lengths, method=method))
            np.testing.assert_array_equal(found, ~spared)
        pairs = np.isnan(pair_marginals(bad, emissions, lengths)).any(axis=(1, 2, 3))
        np.testing.assert_array_equal(pairs, lengths > 1)


def test_unlikely_tags_are_not_drawn_more_often_than_they_should():
    """The lowest place of 2**23 is none of the first tag's, whose probability is 1e-35."""
    weights = np.float32([1e-35, 0.5, 0.5])[:, None, None]
    assert tag_at(np.float32([[2**-23]]), weights) == 1
    assert tag_at(np.float32([[1.0]]), weights[::-1]) == 1


def standard_errors(counts, probability, n):
    """By how many standard errors counts of n draws differ from a probability."""
    return abs(counts / n - probability) / np.sqrt(probability * (1 - probability) / n)


@pytest.mark.parametrize("K", [1, 3])
def test_draws_have_the_probabilities_of_enumeration(K):
    batch, n = make_batch(K, K), 20_000
    for allowed in choices(K)[: 1 if K == 1 else 3]:
        drawn = np.asarray(sample(*batch, KEY, n=n, allowed=allowed))
        for rows, oracle in zip(drawn, sentences(*batch, allowed), strict=True):
            length, chances = len(oracle.emissions), crf_probabilities(oracle)
            assert not rows[:, length:].any()
            paths, counts = np.unique(rows[:, :length], axis=0, return_counts=True)
            found = {tuple(map(int, p)): c for p, c in zip(paths, counts, strict=True)}
            if not chances:
                assert found == {(0,) * length: n}
                continue
            assert found.keys() <= chances.keys()
            for path, chance in chances.items():
                if n * chance > 10 and chance < 1 - 1e-9:
                    assert standard_errors(found.get(path, 0), chance, n) < 5, path


def test_draws_are_independent_of_each_other():
    """Of the other draws of the same sentence, and of a sentence that is the same."""
    params, emissions, _ = make_batch(7, 2, np.array([2]), 2)
    emissions, n = np.tile(emissions, (2, 1, 1)), 20_000
    drawn = np.asarray(sample(params, emissions, np.array([2, 2]), KEY, n=n))
    codes = drawn[..., 0] * 2 + drawn[..., 1]
    chances = np.bincount(codes.ravel(), minlength=4) / codes.size
    for first, second in ((codes[0, ::2], codes[0, 1::2]), (codes[0], codes[1])):
        together = np.bincount(first * 4 + second, minlength=16)
        assert (standard_errors(together, np.outer(chances, chances).ravel(), len(first)) < 5).all()


def check_legal(drawn, params, emissions, lengths, allowed):
    """No draw has a score of minus infinity."""
    expected = sentences(params, emissions, lengths, allowed)
    for rows, oracle in zip(np.asarray(drawn), expected, strict=True):
        legal = {tags for _, tags in crf_paths(oracle)}
        length = len(oracle.emissions)
        assert not legal or {tuple(map(int, row[:length])) for row in rows} <= legal
        assert legal or not rows.any()


@pytest.mark.parametrize("seed", range(3))
def test_draws_are_legal_whatever_the_scores(seed):
    params, emissions, _, lengths = make_large(5)
    allowed = make_allowed(3, seed, 0.5)
    # What is not allowed would be far better.
    params = jax.tree.map(lambda x, ok: np.where(ok, x, np.float32(1e4)), params, allowed)
    emissions[1::2, :, 1] = -np.inf
    drawn = sample(params, emissions, lengths, jax.random.key(seed), n=200, allowed=allowed)
    check_legal(drawn, params, emissions, lengths, allowed)


def test_no_place_is_that_of_a_tag_without_weight():
    """Sums of many weights are rounded so that they may differ before and after such a tag."""
    rng, K, B = np.random.default_rng(0), 301, 100
    weights = (rng.random((K, B)) * (rng.random((K, B)) < 0.3)).astype(np.float32)
    weights[[0, -1]], weights[1] = 0, 1
    weights /= weights.sum(axis=0)
    sums = jnp.cumsum(weights, axis=0)
    places = np.maximum(sums / sums.max(axis=0)[None], np.float32(2**-24))
    tags = jax.jit(tag_at)(places, np.broadcast_to(weights[:, None], (K, K, B)))
    assert (np.take_along_axis(weights, np.asarray(tags), axis=0) > 0).all()
    assert (tags[0] == 1).all()  # the lowest place
    places = np.float32([[0.01], [0.5], [0.51], [1.0]])
    weights = np.float32([0, 0.5, 0, 0.375, 0.125])[:, None, None]
    exact = tag_at(places, np.broadcast_to(weights, (5, 4, 1)))
    np.testing.assert_array_equal(exact, [[1], [1], [3], [4]])


def test_draws_take_what_is_not_finite_for_minus_infinity():
    def draw(value):
        params, emissions, lengths = make_batch(24, 3)
        params.transitions[1, 2] = params.start[2] = params.end[0] = value
        emissions[0, 1, 1:] = emissions[2, 3] = value
        return np.asarray(sample(params, emissions, lengths, KEY, n=20))

    expected = draw(-np.inf)
    for value in (np.nan, np.inf):
        np.testing.assert_array_equal(draw(value), expected)
    assert expected[0].any() and not expected[2].any()


def test_draws_of_five_thousand_steps_have_the_mean_of_the_marginals():
    params, emissions, lengths = make_batch(15, 3, LONG, 5000)
    drawn = np.asarray(sample(params, emissions, lengths, KEY, n=8))
    chances = crf.marginals(params, emissions, lengths)
    shares = (drawn[..., None] == np.arange(3)).mean(axis=1)
    real = real_steps(emissions, lengths)[..., None]
    differences = ((shares - chances) * real).sum(axis=1)[:2] / LONG[:2, None]
    assert abs(differences).max() < 0.01  # the standard error is about 0.003
    assert not drawn.transpose(0, 2, 1)[~real[..., 0]].any()


def test_draws_go_by_the_key_alone():
    params, emissions, lengths = make_batch(16, 3)
    expected = np.asarray(sample(params, emissions, lengths, KEY, n=6))
    np.testing.assert_array_equal(crf.sample(params, emissions, lengths, KEY, 6), expected)
    assert (sample(params, emissions, lengths, jax.random.key(1), n=6) != expected).any()
    assert crf.sample(params, emissions, lengths, KEY).shape == (7, 1, 5)
    old = crf.sample(params, emissions, lengths, jax.random.PRNGKey(0), np.int64(6))
    np.testing.assert_array_equal(old, expected)
    # The first sentence alone is the first of many.
    alone = crf.sample(params, emissions[:1, :3], lengths[:1], KEY, 6)
    np.testing.assert_array_equal(alone[0], expected[0, :, :3])


def test_under_vmap():
    params, emissions, lengths = make_batch(17, 3)
    clean = np.nan_to_num(emissions)

    def one(e, length, key):
        batch = params, e[None], length[None]
        return (
            crf.entropy(*batch)[0],
            crf.pair_marginals(*batch)[0],
            crf.sample(*batch, key, 3)[0],
        )

    keys = jax.random.split(KEY, 7)
    entropies, pairs, drawn = jax.vmap(one)(clean, lengths, keys)
    close(entropies, entropy(params, emissions, lengths), rtol=1e-6)
    close(pairs, pair_marginals(params, emissions, lengths), rtol=1e-5, atol=1e-7)
    for b, key in enumerate(keys):
        expected = sample(params, clean[b : b + 1], lengths[b : b + 1], key, n=3)
        np.testing.assert_array_equal(drawn[b], expected[0])


def test_bfloat16_and_x64_programs_compute_in_float32():
    params, emissions, lengths = make_batch(17, 3)
    low = emissions.astype(jnp.bfloat16)
    for function in (entropy, pair_marginals, partial(sample, key=KEY, n=4)):
        expected = function(params, low.astype(np.float32), lengths)
        found = function(params, low, lengths)
        np.testing.assert_array_equal(found, expected)
        with jax.enable_x64(True):
            wide = function(params, low.astype(np.float32), lengths.astype(np.int64))
            assert found.dtype == wide.dtype == expected.dtype
            close(wide, expected, rtol=1e-6)


def test_narrow_integers_are_lengths():
    params, emissions, lengths = make_batch(4, 3, np.array([120, 0, 3]), 300)
    narrow = lengths.astype(np.int8)  # 300 steps are more than it holds
    for function in (entropy, pair_marginals, partial(sample, key=KEY, n=2)):
        found = function(params, emissions, narrow)
        np.testing.assert_array_equal(found, function(params, emissions, lengths))


GOOD = dict(zip(("params", "emissions", "lengths"), make_batch(20, 3), strict=True))


@pytest.mark.parametrize(
    "function, wrong, message",
    [
        ("entropy", {"emissions": np.zeros((7, 5))}, r"emissions: expected \[B, T, K\].*\[7, 5\]"),
        ("entropy", {"method": "fast"}, "expected one of auto, scan, parallel, got 'fast'"),
        ("pair_marginals", {"lengths": np.ones((7, 5), bool)}, "got a mask"),
        ("pair_marginals", {"allowed": make_allowed(2)}, r"\[3, 3\], got bool \[2"),
        ("sample", {"key": KEY, "params": None}, "params: expected CRFParams, got NoneType"),
        ("sample", {"key": KEY, "n": 0}, "n: expected a whole number of at least 1, got 0"),
        ("sample", {"key": KEY, "n": 2.5}, r"got 2.5 .*jit\(sample, static_argnames"),
        ("sample", {"key": KEY, "n": True}, "n: expected a whole number of at least 1, got True"),
        ("sample", {"key": jax.random.split(KEY, 7)}, r"one key for the whole batch.*\[7\]"),
        ("sample", {"key": 5}, "expected one key .*, got int"),
    ],
)
def test_wrong_shapes_are_named_when_tracing(function, wrong, message):
    with pytest.raises(ValueError, match=message):
        getattr(crf, function)(**GOOD | wrong)

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from tests.reference import (
    Crf,
    crf_forward,
    crf_log_partition,
    crf_marginals,
    crf_paths,
    crf_score,
)
from text import crf, crf_recursion
from text.crf import CRFParams
from text.crf_viterbi import FEW, ranked

LENGTHS = np.array([3, 0, 5, 1, 4, 2, 5], np.int32)
LONG = np.array([5000, 4321, 1], np.int32)
METHODS = ("scan", "parallel")
close = np.testing.assert_allclose


@pytest.fixture(autouse=True)
def strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


def make_problem(seed, K, lengths=LENGTHS, T=5):
    """(params, emissions, tags, lengths); garbage in the padding."""
    rng = np.random.default_rng(seed)
    emissions = rng.normal(size=(len(lengths), T, K)).astype(np.float32)
    tags = rng.integers(0, K, size=(len(lengths), T), dtype=np.int32)
    padding = np.arange(T) >= lengths[:, None]
    emissions[padding], tags[padding] = np.nan, -7
    params = CRFParams(*(rng.normal(size=s).astype(np.float32) for s in ((K, K), (K,), (K,))))
    return params, emissions, tags, lengths


def make_allowed(K, seed=0, share=1.0):
    rng = np.random.default_rng(seed)
    return CRFParams(*(rng.random(s) < share for s in ((K, K), (K,), (K,))))


def choices(K):
    """No constraint, and two that leave about half of the moves."""
    return make_allowed(K), make_allowed(K, 2, 0.5), make_allowed(K, 3, 0.5)


def real_steps(emissions, lengths):
    return np.arange(emissions.shape[1]) < lengths[:, None]


@partial(jax.jit, static_argnames="method")
def loss_and_grads(params, emissions, tags, lengths, method="scan"):
    def total(params, emissions):
        losses = crf.loss(params, emissions, tags, lengths, method=method)
        return losses.sum(), losses

    (_, losses), grads = jax.value_and_grad(total, (0, 1), has_aux=True)(params, emissions)
    return losses, *grads


@partial(jax.jit, static_argnames="method")
def everything(params, emissions, tags, lengths, possible, allowed, method):
    batch, how = (params, emissions, lengths), {"allowed": allowed, "method": method}
    tagged = (params, emissions, tags, lengths)
    return {
        "score": crf.score(*tagged),
        "loss": loss_and_grads(*tagged, method),
        "log_partition": crf.log_partition(*batch, **how),
        "marginals": crf.marginals(*batch, **how),
        "path": crf.path_log_probability(*tagged, **how),
        "possible": crf.log_probability_of(*batch, possible, **how),
        "decode": crf.decode(*batch, **how),
        "nbest": crf.decode_nbest(*batch, 7, allowed=allowed),
    }


def run(params, emissions, tags, lengths, *, possible=None, allowed=None, method="scan"):
    """All that `text.crf` has to say, as NumPy arrays; no constraints unless given."""
    possible = np.ones(emissions.shape, bool) if possible is None else possible
    allowed = make_allowed(emissions.shape[2]) if allowed is None else allowed
    found = everything(params, emissions, tags, lengths, possible, allowed, method)
    return jax.tree.map(np.asarray, found)


def check_same(found, expected, tolerance=1e-5):
    jax.tree.map(lambda a, b: close(a, b, rtol=tolerance, atol=tolerance), found, expected)


def oracles(params, emissions, tags, lengths, *, allowed=None):
    """For each sentence a `Crf` and its tags."""
    params = CRFParams(*(np.asarray(x, np.float64) for x in params))
    if allowed is not None:
        params = CRFParams(*(np.where(a, x, -np.inf) for x, a in zip(params, allowed, strict=True)))
    for e, row, n in zip(np.asarray(emissions, np.float64), tags, lengths, strict=True):
        yield Crf(params.transitions, params.start, params.end, e[:n]), tuple(row[:n].tolist())


def check_sentence(found, oracle, tags, possible, method):
    """What `run` found for one sentence against enumeration."""
    n, whole, paths = len(tags), crf_log_partition(oracle), crf_paths(oracle)
    check_same(found["log_partition"], whole)
    check_same(found["marginals"][:n], crf_marginals(oracle))
    assert not found["marginals"][n:].any()
    check_same(found["path"], crf_score(oracle, tags) - whole if paths else -np.inf)
    part = crf_log_partition(oracle, possible)
    check_same(found["possible"], part - whole if paths else -np.inf)

    (best_tags, best_scores), (tags, score) = found["nbest"], found["decode"]
    wanted = paths[:7] + [(-np.inf, (0,) * n)] * (7 - len(paths))
    check_same(best_scores, np.array([score for score, _ in wanted]))
    assert [tuple(row[:n]) for row in best_tags] == [tags for _, tags in wanted]
    assert not best_tags[:, n:].any()
    np.testing.assert_array_equal(tags, best_tags[0])
    check_same(score, best_scores[0])
    assert score == best_scores[0] or method == "parallel"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("K", [1, 2, 3, 4])
def test_equals_enumeration_of_all_tag_sequences(K, method):
    problem = make_problem(K, K)
    possible = np.random.default_rng(9).random(problem[1].shape) < 0.7
    for allowed in choices(K):
        found = run(*problem, possible=possible, allowed=allowed, method=method)
        sentences = list(oracles(*problem, allowed=allowed))
        for b, (oracle, tags) in enumerate(sentences):
            own = jax.tree.map(lambda x, b=b: x[b], found | {"loss": found["loss"][0]})
            check_sentence(own, oracle, tags, possible[b], method)
        free = [(crf_score(o, tags), crf_log_partition(o)) for o, tags in oracles(*problem)]
        check_same(found["score"], np.array([score for score, _ in free]))
        check_same(found["loss"][0], np.array([whole - score for score, whole in free]))
        if K > 1 and not np.all([a.all() for a in allowed]):
            assert any(len(crf_paths(o)) < K ** len(o.emissions) for o, _ in sentences)


def test_no_path_is_allowed():
    problem = make_problem(1, 3)
    allowed = make_allowed(3)._replace(end=np.zeros(3, bool))
    found = run(*problem, allowed=allowed)
    nothing = np.where(LENGTHS > 0, -np.inf, 0)
    for name in ("log_partition", "path", "possible"):
        np.testing.assert_array_equal(found[name], nothing)
    np.testing.assert_array_equal(found["decode"][1], nothing)
    assert not found["marginals"].any() and not found["decode"][0].any()


def test_no_constraint_is_the_default():
    params, emissions, _, lengths = make_problem(2, 3)
    free = jax.jit(crf.decode)(params, emissions, lengths)
    jax.tree.map(np.testing.assert_array_equal, free, run(*make_problem(2, 3))["decode"])


def test_zero_scores_count_the_paths():
    params, emissions, tags, lengths = make_problem(0, 3)
    params, emissions = jax.tree.map(np.zeros_like, (params, emissions))
    close(run(params, emissions, tags, lengths)["log_partition"], LENGTHS * np.log(3), rtol=1e-6)


def test_probabilities_of_all_sequences_sum_to_one():
    tags = np.array(list(np.ndindex(3, 3, 3, 3)), np.int32)
    params, emissions, _, _ = make_problem(3, 3, np.array([4]), 4)
    emissions = np.broadcast_to(emissions, (81, 4, 3))
    losses = jax.jit(crf.loss)(params, emissions, tags, np.full(81, 4))
    close(np.exp(-losses).sum(), 1, rtol=1e-5)
    assert losses.min() > 0


def test_rounding_makes_no_loss_negative():
    params, emissions, tags, lengths = make_problem(4, 3, LONG, 5000)
    for height in np.linspace(30, 50, 10, dtype=np.float32):
        sure = np.where(np.arange(3) == tags[..., None], height, emissions)
        losses = loss_and_grads(params, sure, tags, lengths)[0]
        assert (losses >= 0).all() and losses.max() < 0.01


def test_padding_and_batch_change_nothing():
    params, emissions, tags, lengths = make_problem(5, 3)
    some = [0, 1, 3]
    kept = np.where(np.isin(np.arange(7), some), lengths, 0)
    losses, by_params, by_emissions = run(params, emissions, tags, kept)["loss"]
    assert not by_emissions[~real_steps(emissions, kept)].any()
    total = jax.tree.map(np.zeros_like, params)
    for b in some:
        one, n = slice(b, b + 1), lengths[b]
        alone = loss_and_grads(params, emissions[one, :n], tags[one, :n], lengths[one])
        check_same((alone[0][0], alone[2][0]), (losses[b], by_emissions[b, :n]))
        total = jax.tree.map(np.add, total, alone[1])
    check_same(total, by_params)


def test_jit_changes_nothing():
    params, emissions, tags, lengths = make_problem(6, 3)
    compiled = run(params, emissions, tags, lengths)["log_partition"]
    check_same(crf.log_partition(params, emissions, lengths), compiled)


def test_what_the_padding_holds_changes_nothing():
    params, emissions, tags, lengths = make_problem(6, 3)
    clean = params, np.nan_to_num(emissions, nan=3.0), np.where(tags < 0, 1, tags), lengths
    first = run(params, emissions, tags, lengths)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(first["loss"]))
    jax.tree.map(np.testing.assert_array_equal, first, run(*clean))


def test_a_constant_added_to_a_step_changes_nothing():
    params, emissions, tags, lengths = make_problem(7, 3)
    moved = emissions + np.array([0.5, -3, 100, 7, -20], np.float32)[:, None]
    first, second = run(params, emissions, tags, lengths), run(params, moved, tags, lengths)
    for name in ("loss", "marginals", "path", "possible"):
        check_same(first[name], second[name], 1e-4)


def test_time_reversed_with_transposed_transitions_is_the_same():
    params, emissions, tags, lengths = make_problem(8, 3)
    real, rows = real_steps(emissions, lengths), np.arange(len(lengths))[:, None]
    index = np.where(real, lengths[:, None] - 1 - np.arange(5), 0)
    backward = CRFParams(params.transitions.T, params.end, params.start)
    first = run(params, emissions, tags, lengths, possible=emissions > -0.5)
    second = run(
        *(backward, emissions[rows, index], tags[rows, index], lengths),
        possible=emissions[rows, index] > -0.5,
    )
    for name in ("score", "log_partition", "path", "possible"):
        check_same(first[name], second[name])
    check_same(first["marginals"], second["marginals"][rows, index] * real[..., None])
    np.testing.assert_array_equal(first["decode"][0], second["decode"][0][rows, index] * real)


@pytest.mark.parametrize("method", METHODS)
def test_gradients(method):
    params, emissions, tags, lengths = make_problem(9, 2, np.array([3, 0, 2]), 3)

    @jax.jit
    def mean_loss(params, emissions):
        return crf.loss(params, emissions, tags, lengths, method=method).mean()

    args = params, np.nan_to_num(emissions)
    check_grads(mean_loss, args, order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


def test_marginals_can_be_differentiated():
    """The second derivative of the log-partition is the covariance of the tags."""
    params, emissions, _, lengths = make_problem(10, 2, np.array([2]), 2)
    jacobian = jax.jit(jax.jacobian(crf.marginals, 1))(params, emissions, lengths)
    p = crf_marginals(next(oracles(params, emissions, emissions[..., 0], lengths))[0]).ravel()
    covariance = np.asarray(jacobian).reshape(4, 4)
    check_same(np.diag(covariance), p * (1 - p))
    check_same(covariance, covariance.T)


@pytest.mark.parametrize("allowed", [make_allowed(3), make_allowed(3, 4, 0.5)])
def test_parallel_equals_scan(allowed):
    problem = make_problem(11, 3)
    scan, parallel = (run(*problem, allowed=allowed, method=method) for method in METHODS)
    check_same(parallel, scan, 1e-4)


@pytest.mark.parametrize(
    "T, K",
    [
        (1, 7),
        (2, 8),
        (3, 9),
        (7, FEW),
        (8, FEW + 1),
        (13, 7),
        (13, 9),
        (1, FEW + 1),
        (8, 8),
        (2, FEW),
    ],
)
def test_both_methods_find_the_same_path_of_many_tags(T, K):
    """Ways that are packed, ways that are not, and scores; lengths that are no power of two."""
    params, emissions, _, lengths = make_problem(T, K, np.array([T, T // 2, 1]), T)
    tags, scores = crf.decode(params, emissions, lengths, method="parallel")
    expected, best_scores = crf.decode(params, emissions, lengths, method="scan")
    np.testing.assert_array_equal(tags, expected)
    check_same(scores, best_scores)
    check_same(scores, crf.score(params, emissions, tags, lengths))
    several = crf.decode_nbest(params, emissions, lengths, 2)
    check_same(scores, several[1][:, 0])


def test_digits_are_lost_in_parallel_only_to_what_no_path_can_reach():
    params, emissions, _, lengths = make_problem(0, 3, np.array([80, 47]), 80)
    allowed = make_allowed(3)
    allowed.transitions[:, 2] = allowed.start[2] = False
    for raised, tolerance in ((10, 1e-4), (1e4, 0.1)):
        high = emissions + np.float32([0, 0, raised])
        scan, parallel = (
            crf.log_partition(params, high, lengths, allowed=allowed, method=m) for m in METHODS
        )
        close(parallel, scan, atol=tolerance)


@pytest.mark.parametrize(
    "on_cpu, T, K, parallel",
    [
        (True, 5000, 2, False),
        (False, 16, 16, True),
        (False, 15, 3, False),
        (False, 16, 17, False),
        (False, 2**16, 16, False),  # too large
    ],
)
def test_auto_goes_by_device_length_and_tags(monkeypatch, on_cpu, T, K, parallel):
    monkeypatch.setattr(crf_recursion, "default_is_cpu", lambda: on_cpu)
    params, emissions, _, lengths = make_problem(0, K, np.array([3]), T)
    for operation in (crf.log_partition, crf.decode):
        program = str(jax.make_jaxpr(operation)(params, emissions, lengths))
        assert ("scan[" not in program) == parallel


def make_large(T):
    """Scores of 1e4 up and down, for the enumerated or the long lengths."""
    params, emissions, tags, lengths = make_problem(13, 3, LENGTHS if T == 5 else LONG, T)
    choice = np.random.default_rng(13).choice([-1e4, 1e4, 1e4 - 1], size=emissions.shape)
    return (
        CRFParams(*(np.copysign(np.float32(1e4), x) for x in params)),
        choice.astype(np.float32),
        tags,
        lengths,
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("T", [5, 5000])
def test_large_scores_stay_finite(method, T):
    problem = make_large(T)
    losses, *grads = loss_and_grads(*problem, method)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((losses, grads)))
    expected = [crf_forward(o) - crf_score(o, tags) for o, tags in oracles(*problem)]
    close(losses, expected, rtol=1e-6, atol=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_five_thousand_steps_keep_their_digits(method):
    params, emissions, *rest = make_problem(14, 3, LONG, 5000)
    problem = params, emissions + np.float32(1e4), *rest
    losses, _, by_emissions = loss_and_grads(*problem, method)
    close(losses, [crf_forward(o) - crf_score(o, tags) for o, tags in oracles(*problem)], rtol=1e-5)
    # The marginals less one at each tag: at every step they sum to 0.
    close(by_emissions.sum(axis=-1), np.zeros((3, 5000)), atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_long_decoding(method):
    @jax.jit
    def decode(params, emissions, lengths):
        tags, scores = crf.decode(params, emissions, lengths, method=method)
        changed = tags.at[:, 17].set((tags[:, 17] + 1) % 3)
        return tags, scores, *(crf.score(params, emissions, t, lengths) for t in (tags, changed))

    params, emissions, _, lengths = make_problem(15, 3, LONG, 5000)
    tags, scores, own, lower = decode(params, emissions, lengths)
    close(scores, own, rtol=1e-6)
    assert (lower < own).tolist() == [True, True, False]
    assert not np.asarray(tags)[~real_steps(emissions, lengths)].any()


@pytest.mark.parametrize("method", METHODS)
def test_large_scores_equal_enumeration(method):
    problem = make_large(5)
    found = run(*problem, method=method)
    for marginals, (oracle, tags) in zip(found["marginals"], oracles(*problem), strict=True):
        # float32 has three decimals left at 1e4.
        check_same(marginals[: len(tags)], crf_marginals(oracle), 1e-3)
    for tags, score, (oracle, _) in zip(*found["decode"], oracles(*problem), strict=True):
        best = crf_paths(oracle)[0][0]
        assert score == best == crf_score(oracle, tuple(tags[: len(oracle.emissions)]))


def test_without_transitions_it_is_token_cross_entropy():
    params, emissions, tags, lengths = make_problem(16, 3)
    real, clean = real_steps(emissions, lengths), np.nan_to_num(emissions)
    found = run(jax.tree.map(np.zeros_like, params), emissions, tags, lengths)
    token = optax.softmax_cross_entropy_with_integer_labels(clean, np.where(real, tags, 0))
    check_same(found["loss"][0], np.where(real, token, 0).sum(axis=1))
    check_same(found["marginals"], np.asarray(jax.nn.softmax(clean)) * real[..., None])
    np.testing.assert_array_equal(found["decode"][0], clean.argmax(-1) * real)


def test_bfloat16_emissions_are_computed_in_float32():
    params, emissions, tags, lengths = make_problem(17, 3)
    low = emissions.astype(jnp.bfloat16)
    args = params, low, tags, lengths, emissions > 0, make_allowed(3)
    shapes = jax.eval_shape(partial(everything, method="scan"), *args)
    by_emissions = shapes.pop("loss")[2]
    assert by_emissions.dtype == jnp.bfloat16  # as the emissions are
    assert {str(x.dtype) for x in jax.tree.leaves(shapes)} == {"float32", "int32"}
    found, same = (
        loss_and_grads(params, e, tags, lengths)[:2] for e in (low, low.astype(np.float32))
    )
    check_same(found, same)


def test_ties_give_different_paths_and_no_more_than_there_are():
    params, emissions, _, lengths = make_problem(0, 2, np.array([3, 2, 0]), 3)
    params, emissions = jax.tree.map(np.zeros_like, (params, emissions))
    decode = jax.jit(crf.decode_nbest, static_argnums=3)
    tags, scores = map(np.asarray, decode(params, emissions, lengths, 11))
    for row, score, count in zip(tags, scores, (8, 4, 1), strict=True):
        assert len({tuple(path) for path in row[:count]}) == count
        assert not score[:count].any() and np.isneginf(score[count:]).all()
        assert not row[count:].any()


@pytest.mark.parametrize("count", [4, FEW, FEW + 1, 2 * FEW + 1])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_the_best_place_is_that_of_argmax(dtype, count):
    """Of equals it is the first, also of ones that are all minus infinity."""
    candidates = np.random.default_rng(0).integers(0, 3, (count, 5, 100)).astype(dtype)
    if dtype == np.float32:
        candidates[:, 0] = -np.inf
        candidates[2, 1] = np.inf
    for some in (candidates, candidates[:1], candidates[:, :, :0]):
        largest, found = ranked(some, 1)
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(found, np.argmax(some, axis=0)[None])
        np.testing.assert_array_equal(largest, np.max(some, axis=0)[None])
    lost = np.full((count, 1), np.nan, np.float32)
    assert 0 <= ranked(lost, 1)[1][0, 0] < count


@pytest.mark.parametrize("method", METHODS)
def test_infinite_scores_leave_gradients_finite(method):
    params, emissions, tags, lengths = make_problem(18, 3)
    params.transitions[:, 2] = emissions[4, 2, 1] = -np.inf
    tags[0, :3], tags[4, :4] = (1, 0, 2), (2, 1, 0, 1)  # impossible, possible
    with np.errstate(invalid="ignore"):  # NumPy, on casting the NaN of the padding
        losses, *grads = run(params, emissions, tags, lengths, method=method)["loss"]
    expected = [
        crf_log_partition(o) - crf_score(o, t) for o, t in oracles(params, emissions, tags, lengths)
    ]
    check_same(losses, np.array(expected))
    assert np.isinf(losses[0]) and np.isfinite(losses[4])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    "shape, method",
    [
        ((0, 3, 2), "scan"),
        ((0, 3, 2), "parallel"),
        ((2, 0, 2), "scan"),
        ((2, 0, 2), "parallel"),
        ((1, 1, 1), "parallel"),
    ],
)
def test_empty_batches_and_empty_sentences(shape, method):
    B, T, K = shape
    found = run(*make_problem(19, K, np.full(B, T), T), method=method)
    assert found["loss"][2].shape == found["marginals"].shape == shape
    assert (found["marginals"] == 1).all() and not found["loss"][0].any()
    assert found["nbest"][0].shape == (B, 7, T) and found["nbest"][1].shape == (B, 7)
    assert np.isfinite(found["decode"][1]).all()


@pytest.mark.parametrize("method", ["scan", "parallel"])
def test_what_is_no_number_on_the_gold_path_makes_its_loss_none(method):
    params, emissions, tags, lengths = make_problem(24, 3)
    emissions[2, 1, tags[2, 1]] = np.nan
    possible = np.ones(emissions.shape, bool)
    found = run(params, emissions, tags, lengths, possible=possible, method=method)
    for values in (found["loss"][0], found["path"], found["possible"]):
        np.testing.assert_array_equal(np.isnan(values), np.arange(len(tags)) == 2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad_tag, bad_length", [(3, 5), (-1, 5), (0, 6), (0, -1)])
def test_a_tag_or_a_length_out_of_range_makes_its_loss_no_number(bad_tag, bad_length, method):
    params, emissions, tags, lengths = make_problem(3, K=3)
    good, *good_grads = loss_and_grads(params, emissions, tags, lengths, method=method)
    lengths, tags = lengths.copy(), tags.copy()
    lengths[2], tags[2, 4] = bad_length, bad_tag  # a sentence of all steps
    found, *grads = loss_and_grads(params, emissions, tags, lengths, method=method)
    assert np.isnan(found[2])
    assert np.isnan(grads[0].transitions).any() == (bad_length > 0)  # else there are no steps
    close(np.delete(found, 2), np.delete(good, 2), rtol=1e-6)
    close(np.delete(grads[1], 2, axis=0), np.delete(good_grads[1], 2, axis=0), atol=1e-6)
    assert np.isnan(crf.score(params, emissions, tags, lengths)[2])
    assert np.isnan(crf.path_log_probability(params, emissions, tags, lengths)[2])


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_narrow_integers_are_tags_and_lengths(kind):
    many = 1 + np.iinfo(kind).max
    params, emissions, tags, lengths = make_problem(4, K=many, T=many, lengths=np.array([120, 3]))
    wide, *_ = loss_and_grads(params, emissions, tags, lengths)
    padding = ~real_steps(emissions, lengths)
    tags[padding] = 0
    narrow, *_ = loss_and_grads(params, emissions, tags.astype(kind), lengths.astype(kind))
    close(narrow, wide, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["scan", "parallel"])
def test_what_is_no_number_at_a_real_step_is_no_small_loss(method, bad):
    params, emissions, tags, _ = make_problem(24, 3)
    lengths = np.full(len(tags), tags.shape[1])
    expected = np.array(crf.loss(params, emissions, tags, lengths, method=method))
    emissions[2, 1, (tags[2, 1] + 1) % 3] = bad  # not of the gold path
    found = np.array(crf.loss(params, emissions, tags, lengths, method=method))
    assert np.isnan(found[2]) or found[2] == np.inf
    np.testing.assert_array_equal(np.delete(found, 2), np.delete(expected, 2))
    assert not np.isfinite(crf.log_partition(params, emissions, lengths, method=method))[2]


DECODERS = {
    "scan": partial(crf.decode, method="scan"),
    "parallel": partial(crf.decode, method="parallel"),
    "several": partial(crf.decode_nbest, n=2),
}


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("K", [3, FEW + 1])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_decoding_takes_what_is_not_finite_for_minus_infinity(name, K, bad):
    def make(value):
        params, emissions, _, _ = make_problem(24, K)
        params.transitions[1, 2] = params.start[2] = params.end[0] = value
        emissions = np.nan_to_num(emissions, nan=1.0)
        emissions[0, 1, 1:] = emissions[1, :, 0] = emissions[2, 3] = value
        return params, emissions, np.full(len(emissions), emissions.shape[1])

    tags, scores = DECODERS[name](*make(bad))
    jax.tree.map(np.testing.assert_array_equal, (tags, scores), DECODERS[name](*make(-np.inf)))
    assert not tags[2].any() and (scores[2] == -np.inf).all()
    assert np.isfinite(np.delete(scores.reshape(len(scores), -1)[:, 0], 2)).all()


@pytest.mark.parametrize("constant", [0, 100, 1e4])
@pytest.mark.parametrize("name", ["scan", "several"])
def test_decoding_is_exact_where_all_scores_are_large(name, constant):
    """The best path in float64 is no better than the one found, and its score is that said."""
    params, emissions, _, lengths = make_problem(30, 3, np.array([250, 249, 17]), 250)
    emissions += np.float32(constant)
    tags, scores = DECODERS[name](params, emissions, lengths)
    first, said = (tags[:, 0], scores[:, 0]) if name == "several" else (tags, scores)
    for found, score, (oracle, path) in zip(
        first, said, oracles(params, emissions, np.asarray(first), lengths), strict=True
    ):
        best = crf_forward(oracle, np.max)
        assert best - crf_score(oracle, path) < 1e-3, found
        close(score, best, rtol=1e-7, atol=1e-4)
    longer = np.pad(emissions, ((0, 0), (0, 7), (0, 0)), constant_values=np.nan)
    padded_tags, padded_scores = DECODERS[name](params, longer, lengths)
    np.testing.assert_array_equal(padded_tags[..., :250], tags)
    np.testing.assert_array_equal(padded_scores, scores)


def test_the_score_of_five_thousand_large_steps_keeps_its_digits():
    params, emissions, tags, lengths = make_problem(15, 3, LONG, 5000)
    emissions += np.float32(1e4)
    _, scores = crf.decode(params, emissions, lengths, method="scan")
    for score, (oracle, _) in zip(scores, oracles(params, emissions, tags, lengths), strict=True):
        close(score, crf_forward(oracle, np.max), rtol=1e-7)


def test_more_paths_than_are_compared_one_by_one():
    params, emissions, tags, lengths = make_problem(31, 3, np.array([4, 5]))
    found = crf.decode_nbest(params, emissions, lengths, np.int64(FEW + 4))
    for rows, scores, (oracle, path) in zip(
        *found, oracles(params, emissions, tags, lengths), strict=True
    ):
        wanted = crf_paths(oracle)[: FEW + 4]
        close(scores, [score for score, _ in wanted], rtol=1e-5, atol=1e-5)
        assert [tuple(row[: len(path)]) for row in np.asarray(rows).tolist()] == [
            t for _, t in wanted
        ]


@pytest.mark.parametrize("K", [3, FEW + 1])
def test_decoding_under_vmap_and_its_scores_gradient(K):
    params, emissions, _, lengths = make_problem(32, K)
    emissions = np.nan_to_num(emissions)
    tags, scores = crf.decode(params, emissions, lengths)
    one_by_one = jax.vmap(lambda e, n: crf.decode(params, e[None], n[None]))(emissions, lengths)
    np.testing.assert_array_equal(one_by_one[0][:, 0], tags)
    close(one_by_one[1][:, 0], scores, rtol=1e-6)
    gradient = jax.grad(lambda e: crf.decode(params, e, lengths)[1].sum())(emissions)
    real = real_steps(emissions, lengths)[..., None]
    np.testing.assert_allclose(gradient, jax.nn.one_hot(tags, K) * real, atol=1e-6)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("K", [3, FEW + 1])
def test_decoding_in_an_x64_program_is_float32(name, K):
    params, emissions, _, lengths = make_problem(33, K)
    expected = DECODERS[name](params, emissions, lengths)
    with jax.enable_x64(True):
        tags, scores = DECODERS[name](params, emissions, lengths.astype(np.int64))
        assert (tags.dtype, scores.dtype) == (jnp.int32, jnp.float32)
        jax.tree.map(np.testing.assert_array_equal, (tags, scores), expected)


@pytest.mark.parametrize("n", [1, 2, 5, FEW, FEW + 1])
def test_the_largest_come_in_order_and_of_equals_the_first(n):
    candidates = np.random.default_rng(0).integers(0, 9, (2 * FEW, 4, 5)).astype(np.float32)
    order = np.argsort(-candidates, axis=0, kind="stable")[:n]
    values, places = ranked(candidates, n)
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(values, np.take_along_axis(candidates, order, axis=0))


GOOD = dict(zip(("params", "emissions", "tags", "lengths"), make_problem(20, 3), strict=True))


@pytest.mark.parametrize(
    "function, wrong, message",
    [
        ("loss", {"emissions": np.zeros((7, 5))}, r"emissions: expected \[B, T, K\].*\[7, 5\]"),
        ("loss", {"emissions": np.zeros((7, 5, 0))}, "K at least 1"),
        ("loss", {"emissions": np.zeros((7, 5, 3), np.int32)}, "emissions: expected float.*int32"),
        (
            "loss",
            {"emissions": np.zeros((7, 5, 4))},
            r"transitions for emissions \[7, 5, 4\]: .*\[4, 4\], got .*\[3, 3\]",
        ),
        ("score", {"tags": np.zeros((7, 4), int)}, r"tags: .*\[7, 5\], got int64 \[7, 4\]"),
        ("score", {"tags": np.zeros((7, 5))}, "tags: expected integer.*got float64"),
        ("score", {"lengths": [5] * 7}, "lengths: expected an array, got list"),
        ("loss", {"emissions": 1.0}, "emissions: expected an array, got float"),
        ("score", {"lengths": np.zeros(6, int)}, r"lengths: .*\[7\], got int64 \[6\]"),
        ("score", {"lengths": np.ones((7, 5), bool)}, r"got a mask: give mask.sum\(axis=1\)"),
        ("decode_nbest", {"n": True}, "n: expected a whole number of at least 1, got True"),
        ("loss", {"params": None}, "params: expected CRFParams, got NoneType"),
        ("decode_nbest", {"n": 2.5}, "n: expected a whole number of at least 1, got 2.5"),
        ("decode", {"params": tuple(GOOD["params"])}, "params: expected CRFParams, got tuple"),
        (
            "decode",
            {"allowed": np.ones((3, 3), bool)},
            "allowed: expected CRFParams of booleans, got ndarray",
        ),
        (
            "decode",
            {"allowed": make_allowed(2)},
            r"allowed.transitions for .*\[3, 3\], got bool \[2",
        ),
        ("decode", {"allowed": GOOD["params"]}, r"allowed.transitions for .*: expected bool"),
        ("decode_nbest", {"n": 0}, "n: expected a whole number of at least 1, got 0"),
        ("marginals", {"method": "fast"}, "expected one of auto, scan, parallel, got 'fast'"),
        (
            "decode",
            {"method": "fast", "emissions": np.zeros((7, 0, 3), np.float32)},
            "expected one of auto, scan, parallel, got 'fast'",
        ),
        ("log_probability_of", {"possible": np.ones((7, 5), bool)}, r"possible: .*\[7, 5, 3\]"),
    ],
)
def test_wrong_shapes_are_named_when_tracing(function, wrong, message):
    names = ["params", "emissions", "lengths"]
    if function in ("loss", "score"):
        names.append("tags")
    with pytest.raises(ValueError, match=message):
        getattr(crf, function)(**{name: GOOD[name] for name in names} | wrong)

"""Our sides of the benchmarks work and agree with themselves, at sizes that take no time."""

import math
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import our_crf, our_steps, our_tagger
from benchmarks.process import ROOT
from benchmarks.sides import leaves, to_numpy

TIMED = """
import jax, jax.numpy as jnp
from benchmarks.our_steps import waiting
from common.parallel import local_devices

local_devices(1)
calls = [waiting(jax.jit(lambda x: jnp.sin(x @ x)), jnp.ones((1500, 1500))) for _ in range(3)]
print(all(call().is_ready() for call in calls))
"""


def test_both_ways_through_time_find_the_same():
    scan, parallel = (our_crf.calls(3, 9, 3, method) for method in ("auto", "parallel"))
    assert {*parallel} < {*scan}
    for name in parallel:
        found, expected = (leaves(to_numpy(calls[name]())) for calls in (parallel, scan))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    tags, nbest = scan["Viterbi"]()[0], scan["5-best"]()[0]
    np.testing.assert_array_equal(nbest[:, 0], tags)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_taggers_epoch_trains_and_its_problem_is_of_the_first_weights(devices):
    calls = our_tagger.calls(None, "random", 8, 64, "float32", devices)
    problem, first = calls["problem"](), calls["loss"]()
    before = jax.tree.map(np.array, calls["parameters"]())
    assert sum(len(lengths) for _, _, lengths in problem["train"]) == 400
    assert sum(len(lengths) for _, _, lengths in problem["test"]) == 100
    for tokens, tags, lengths in problem["train"]:
        assert tokens.shape == tags.shape == (len(lengths), max(lengths))
        assert tokens.max() < len(problem["vectors"])
    calls["training epoch"]()
    assert len(calls["prediction pass"]()) == 100
    assert calls["loss"]() == first and math.isfinite(first)
    for name, value in calls["parameters"]().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_call_that_is_timed_returns_when_its_work_is_done():
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    answer = subprocess.check_output(
        [sys.executable, "-c", TIMED], cwd=ROOT, env=environment, text=True
    )
    assert answer.split() == ["True"]


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_as_one_program_are_asked_for(steps):
    calls = our_steps.classifier_calls("cnn_b", 2, "float32", steps)
    assert (f"{steps} training steps" in calls) == (steps > 1)
    first = calls["training step"]()
    assert calls["training step"]() != first
    assert calls["inference"]().shape == (2, 10)
    assert calls["parameters"]()["head.kernel"].shape[1] == 10

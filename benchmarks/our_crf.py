"""Our CRF's operations over the arrays of problems.py, without PyTorch in the process.

Every function that is returned is jitted, has its arrays on the device, and waits for its result.
"""

from collections.abc import Callable
from functools import partial

import jax
from jax import Array

from benchmarks.our_steps import waiting
from benchmarks.problems import PATHS, make_problem
from common.parallel import local_devices
from text import crf
from text.crf import CRFParams

NBEST_TAGS, NBEST_LENGTH = 16, 1024  # beyond these, n-best is left out


def place(B: int, T: int, K: int) -> tuple[CRFParams, Array, Array, Array]:
    """Parameters, emissions, tags and lengths on the device; JAX starts as it does for a run."""
    local_devices(1)
    problem = make_problem(B, T, K)
    params = CRFParams(*problem.params)
    return jax.device_put((params, problem.emissions, problem.tags, problem.lengths))


def gradient(B: int, T: int, K: int, method: str) -> Callable[[], tuple]:
    """The summed loss and its gradients by the parameters and the emissions."""
    params, emissions, tags, lengths = place(B, T, K)

    def total(params: CRFParams, emissions: Array) -> Array:
        return crf.loss(params, emissions, tags, lengths, method=method).sum()

    return waiting(jax.jit(jax.value_and_grad(total, argnums=(0, 1))), params, emissions)


def calls(B: int, T: int, K: int, method: str) -> dict[str, Callable]:
    """All operations that go through time by this method, and with "auto" n-best and draws."""
    params, emissions, _, lengths = place(B, T, K)
    operations: dict[str, Callable] = {
        "Viterbi": partial(crf.decode, method=method),
        "marginals": partial(crf.marginals, method=method),
        "entropy": partial(crf.entropy, method=method),
    }
    if method == "auto" and K <= NBEST_TAGS and T <= NBEST_LENGTH:
        operations[f"{PATHS}-best"] = partial(crf.decode_nbest, n=PATHS)
    made = {"loss and gradient": gradient(B, T, K, method)} | {
        name: waiting(jax.jit(operation), params, emissions, lengths)
        for name, operation in operations.items()
    }
    if method == "auto":
        sample = jax.jit(partial(crf.sample, n=PATHS))
        made[f"{PATHS} draws"] = waiting(sample, params, emissions, lengths, jax.random.key(0))
    return made


def loss(B: int, T: int, K: int, method: str) -> float:
    """For memory.py, in a process of its own."""
    return float(gradient(B, T, K, method)()[0])

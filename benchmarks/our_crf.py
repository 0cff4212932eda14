"""Our CRF's operations over the arrays of problems.py, without PyTorch in the process.

Every function that is returned is jitted, has its arrays on the device, and waits for its result.
"""

from collections.abc import Callable
from functools import partial

import jax
from jax import Array

from benchmarks.problems import PATHS, Problem, make_problem
from common.parallel import local_devices
from text import crf
from text.crf import CRFParams

NBEST_TAGS, NBEST_LENGTH = 16, 1024  # beyond these, n-best is left out


def gradient(B: int, T: int, K: int, method: str) -> Callable[[], tuple]:
    """The summed loss and its gradients by the parameters and the emissions."""
    problem = make_problem(B, T, K)
    params, emissions, lengths = place(problem)
    tags = jax.device_put(problem.tags)

    def total(params: CRFParams, emissions: Array) -> Array:
        return crf.loss(params, emissions, tags, lengths, method=method).sum()

    compiled = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    return lambda: jax.block_until_ready(compiled(params, emissions))


def place(problem: Problem) -> tuple[CRFParams, Array, Array]:
    """Parameters, emissions and lengths on the device; JAX starts as it does for a run."""
    local_devices(1)
    return jax.device_put((CRFParams(*problem.params), problem.emissions, problem.lengths))


def scan_calls(B: int, T: int, K: int) -> dict[str, Callable]:
    """Step by step through time."""
    placed = place(make_problem(B, T, K))
    operations: dict[str, Callable] = {
        "Viterbi": crf.decode,
        "marginals": partial(crf.marginals, method="scan"),
    }
    if K <= NBEST_TAGS and T <= NBEST_LENGTH:
        operations[f"{PATHS}-best"] = partial(crf.decode_nbest, n=PATHS)
    return {"loss and gradient": gradient(B, T, K, "scan")} | {
        name: compiled(operation, placed) for name, operation in operations.items()
    }


def parallel_calls(B: int, T: int, K: int) -> dict[str, Callable]:
    """All steps at once: what `method="parallel"` is for."""
    marginals = partial(crf.marginals, method="parallel")
    return {
        "loss and gradient": gradient(B, T, K, "parallel"),
        "marginals": compiled(marginals, place(make_problem(B, T, K))),
    }


def compiled(operation: Callable, placed: tuple) -> Callable[[], object]:
    """A function without arguments that waits for the result."""
    jitted = jax.jit(operation)
    return lambda: jax.block_until_ready(jitted(*placed))


def loss(B: int, T: int, K: int, method: str) -> float:
    """For memory.py, in a process of its own."""
    return float(gradient(B, T, K, method)()[0])

"""A toy training as a process of its own: python -m tests.faults.toy_run FOLDER [WHAT].

WHAT is "slow", for steps of minutes; "slow_scores", for a validation of minutes; "large", for
steps that need 32 MB an example where this process may have 250 MB more; or nothing.
It prints "computing" when the long computation has begun.
"""

import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp

import launch
from common import loop
from common.claim import claim
from common.writer import say
from tests.toy import make_plan, patched


def compute_for_minutes(state, data, rows, key):
    spin = jax.jit(lambda n, x: jax.lax.fori_loop(0, n, lambda _, x: jnp.tanh(x @ x), x))
    x = spin(1, jnp.ones((64, 64)))  # compiles
    say("computing")
    loss = spin(10**9, x).sum()
    return state, {"weight": jnp.float32(1), "loss": loss}


def score_for_minutes(state):
    say("computing")
    for _ in range(1000):
        time.sleep(0.1)
    return {}


@jax.jit
def fill_memory(state, data, rows, key):
    large = rows["weight"][:, None] * jnp.arange(1 << 23, dtype=jnp.float32)  # 32 MB an example
    return state, {"weight": jnp.float32(1), "loss": jnp.cumsum(large, 1).max()}


def main() -> None:
    folder, what = Path(sys.argv[1]), "".join(sys.argv[2:])
    with claim(folder):
        plan, state = make_plan(folder)
        if what == "slow":
            plan = patched(plan, train_step=compute_for_minutes)
        elif what == "slow_scores":
            plan = replace(plan, evaluate=score_for_minutes)
        elif what == "large":
            plan = patched(plan, train_step=fill_memory)
            size = Path("/proc/self/statm").read_text().split()[0]
            limit = int(size) * resource.getpagesize() + 250 * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        loop.run(state, plan)


if __name__ == "__main__":
    launch.end(launch.run_to_exit_status(main))

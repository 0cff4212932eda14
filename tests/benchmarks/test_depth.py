"""Dependent operations are counted along the longest chain."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.depth import depth


def test_a_chain_is_as_deep_as_it_is_long():
    assert depth(lambda x: jnp.sin(jnp.sin(jnp.sin(x))), 1.0) == 3


def test_what_can_run_at_once_counts_once():
    assert depth(lambda x: jnp.sin(x) + jnp.cos(x), 1.0) == 2


def test_what_reaches_no_output_does_not_count():
    def fn(x):
        jnp.sin(jnp.sin(jnp.sin(x)))
        return jnp.cos(x)

    assert depth(fn, 1.0) == 1


def test_a_scan_counts_every_step_and_a_call_its_body():
    def step(carry, _):
        return jnp.sin(jnp.sin(carry)), None

    def fn(x):
        return jax.jit(jnp.cos)(jax.lax.scan(step, x, None, length=10)[0])

    assert depth(fn, 1.0) == 21


def test_an_associative_scan_is_logarithmic():
    deep, deeper = (
        depth(lambda x: jax.lax.associative_scan(jnp.multiply, x), jnp.ones(n)) for n in (64, 4096)
    )
    assert deeper < 3 * deep


def test_a_loop_of_no_fixed_length_is_refused():
    with pytest.raises(ValueError, match="while"):
        depth(lambda x: jax.lax.while_loop(lambda c: c < 3, lambda c: c + 1, x), 0)

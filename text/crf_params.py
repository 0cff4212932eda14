"""The parameters of `text.crf`, and the checks and masks that every function of it starts with."""

from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

# Stands for minus infinity, whose differences would be NaN. Far below any real path (1e4 a
# step for 5,000 steps is 5e7), yet 1e8 steps of it still fit in float32.
DISALLOWED = -1e30


class CRFParams(NamedTuple):
    """Scores of moving between tags.

    Attributes:
        transitions: [K, K], from the row's tag to the column's.
        start: [K], of the first tag.
        end: [K], of the last tag.
    """

    transitions: Any
    start: Any
    end: Any


# Booleans in the same places: which moves are allowed. A constant for decoding, never trained.
Allowed: TypeAlias = CRFParams


def expect_array(name: str, value: Any) -> None:
    """ValueError for a list or a number, which has no shape and dtype."""
    if not hasattr(value, "dtype"):
        raise ValueError(f"{name}: expected an array, got {type(value).__name__}")


def expect(name: str, array: Any, shape: tuple[int, ...], kind: Any) -> None:
    """ValueError unless `array` is one, of this shape and kind of dtype."""
    expect_array(name, array)
    if array.shape != shape or not jnp.issubdtype(array.dtype, kind):
        raise ValueError(
            f"{name}: expected {kind.__name__} {list(shape)}, got {array.dtype} {list(array.shape)}"
        )


def expect_count(n: Any, function: str) -> None:
    """ValueError unless `n`, how many paths `function` is to give, is a whole number above 0."""
    if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1:
        raise ValueError(
            f"n: expected a whole number of at least 1, got {n!r} (under jit, n is static: "
            f'jax.jit({function}, static_argnames="n"))'
        )


def prepare_params(
    params: CRFParams, emissions: Array, lengths: Array, allowed: Allowed | None = None
) -> CRFParams:
    """The parameters in float32, finite where minus infinity or not allowed, if all shapes fit."""
    if not isinstance(params, CRFParams):
        raise ValueError(f"params: expected CRFParams, got {type(params).__name__}")
    if not isinstance(allowed, CRFParams | None):
        raise ValueError(f"allowed: expected CRFParams of booleans, got {type(allowed).__name__}")
    expect_array("emissions", emissions)
    if emissions.ndim != 3 or not emissions.shape[2]:
        raise ValueError(
            f"emissions: expected [B, T, K], K at least 1, got {list(emissions.shape)}"
        )
    B, T, K = emissions.shape
    shapes = CRFParams(transitions=(K, K), start=(K,), end=(K,))
    expect("emissions", emissions, (B, T, K), jnp.floating)
    if getattr(lengths, "dtype", None) == jnp.bool_:
        raise ValueError("lengths: expected integer [B], got a mask: give mask.sum(axis=1)")
    expect("lengths", lengths, (B,), jnp.integer)
    given = f" for emissions {[B, T, K]}"
    for name, shape in shapes._asdict().items():
        expect(f"params.{name}{given}", getattr(params, name), shape, jnp.floating)
        if allowed is not None:
            expect(f"allowed.{name}{given}", getattr(allowed, name), shape, jnp.bool_)
    params = CRFParams(*(jnp.maximum(x.astype(jnp.float32), DISALLOWED) for x in params))
    if allowed is not None:
        params = CRFParams(*map(lambda x, ok: jnp.where(ok, x, DISALLOWED), params, allowed))
    return params


def prepare(
    params: CRFParams, emissions: Array, lengths: Array, allowed: Allowed | None = None
) -> tuple[CRFParams, Array]:
    """`prepare_params`, and the emissions in float32, minus infinity finite, the padding 0."""
    params = prepare_params(params, emissions, lengths, allowed)
    real = jnp.arange(emissions.shape[1])[None, :, None] < lengths[:, None, None]
    emissions = jnp.where(real, emissions.astype(jnp.float32), 0.0)
    return params, jnp.maximum(emissions, DISALLOWED)


def centred(emissions: Array) -> Array:
    """The best tag of each step at 0, which changes no probability and spares digits."""
    top = lax.stop_gradient(emissions.max(axis=-1, keepdims=True))
    return emissions - jnp.where(jnp.isfinite(reachable_or_infinite(top)), top, 0.0)


def finite_or_disallowed(scores: Array) -> Array:
    """Scores in float32; infinities and what is not a number are disallowed, as decoding has it."""
    scores = scores.astype(jnp.float32)
    return jnp.where(jnp.abs(scores) < -DISALLOWED, scores, DISALLOWED)


def reachable_or_infinite(scores: Array) -> Array:
    """Scores, minus infinity for those that something disallowed is part of."""
    return jnp.where(scores <= DISALLOWED / 2, -jnp.inf, scores)

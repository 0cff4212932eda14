"""How many operations a program must make one after another, however many could run at once.

What is left of its time on a machine with no end of cores; counted, so the same everywhere.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


def depth(fn: Callable[..., Any], *arguments: Any) -> int:
    """The longest chain of dependent operations in `fn(*arguments)`.

    An operation on whole arrays counts 1, a scan its length times the depth of its body.

    Raises:
        ValueError: a loop of no fixed length.
    """
    return _depth(jax.make_jaxpr(fn)(*arguments).jaxpr)


def _depth(jaxpr: Jaxpr) -> int:
    ready: dict[Any, int] = {}  # operations up to each variable

    def latest(atoms: Any) -> int:
        return max((ready.get(a, 0) for a in atoms if not isinstance(a, Literal)), default=0)

    for equation in jaxpr.eqns:
        done = latest(equation.invars) + _cost(equation)
        ready |= dict.fromkeys(equation.outvars, done)
    return latest(jaxpr.outvars)


def _cost(equation: Any) -> int:
    if equation.primitive.name == "while":
        raise ValueError("a while loop has no depth that could be counted")
    bodies = [_depth(body) for body in _bodies(equation.params.values())]
    return equation.params.get("length", 1) * max(bodies) if bodies else 1


def _bodies(values: Any) -> Iterator[Jaxpr]:
    """The programs inside an operation: of a call, a branch or a loop."""
    for value in values:
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _bodies(value)

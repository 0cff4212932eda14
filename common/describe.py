"""The layer table of any flax linen module: shapes, parameters and FLOPs, without compiling."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax

# Layers that multiply the whole kernel at every position of the output.
KERNEL_LAYERS = (nn.Conv, nn.Dense, nn.DenseGeneral)
# Shown as one row though they call others: the cell within is traced once, not once per step.
WHOLE_LAYERS = (nn.RNN,)

Path = tuple[str, ...]


class Row(NamedTuple):
    """One call of a layer.

    Shapes are those of the first array in and the first array out, batch axis included. A
    layer that is called again has its parameters in its first row only. `flops` is
    2 * multiply-adds of the forward pass for one example: convolutions (padding included),
    dense and flax's recurrent layers count; bias, normalisation, pooling and the like are 0.
    """

    path: str
    kind: str
    inputs: tuple
    outputs: tuple
    params: int
    flops: int


@dataclasses.dataclass
class _Call:
    module: nn.Module
    path: Path
    inputs: tuple
    outputs: tuple = ()
    is_leaf: bool = True


def describe(module: nn.Module, example: Any, **apply_kwargs: Any) -> list[Row]:
    """The leaf layers of `module` in the order of their calls; instant for any depth.

    Args:
      module: an unbound linen module.
      example: array or `jax.ShapeDtypeStruct` [1, ...], the first argument of the module.
      **apply_kwargs: the other arguments, such as train=False.

    Returns:
      A row per layer. A module that calls others has a row only if it holds parameters of its
      own, so that the parameters of the rows always add up to the model's.
    """
    arrays = {name: value for name, value in apply_kwargs.items() if hasattr(value, "dtype")}
    fixed = {name: value for name, value in apply_kwargs.items() if name not in arrays}
    calls: list[_Call] = []

    def init(example: Any, arrays: dict[str, Any]) -> Any:
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        with nn.intercept_methods(_recorder(calls)):
            return module.init(keys, example, **arrays, **fixed)

    variables = jax.eval_shape(init, example, arrays)
    owned = _params_by_owner(variables.get("params", {}), {call.path for call in calls})
    rows = []
    seen: set[Path] = set()
    for call in calls:
        params = owned.get(call.path, [])
        first = call.path not in seen
        seen.add(call.path)
        if call.is_leaf or (params and first):
            rows.append(_row(call, params, first))
    return rows


def _recorder(calls: list[_Call]) -> Callable:
    """An interceptor that appends every call of a module to `calls`, in order of entry."""
    running: list[_Call] = []

    def record(
        call_next: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ) -> Any:
        inside = any(isinstance(call.module, WHOLE_LAYERS) for call in running)
        if context.method_name != "__call__" or inside:
            return call_next(*args, **kwargs)
        module = context.module
        call = _Call(module, module.path, _first_shape((args, kwargs)))
        if running:
            running[-1].is_leaf = False
        calls.append(call)
        running.append(call)
        try:
            result = call_next(*args, **kwargs)
        finally:
            running.pop()
        # With return_carry a recurrent layer puts its last state before its outputs.
        has_carry = isinstance(module, WHOLE_LAYERS) and isinstance(result, tuple)
        call.outputs = _first_shape(result[-1] if has_carry else result)
        return result

    return record


def _first_shape(tree: Any) -> tuple:
    arrays = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape")]
    return tuple(arrays[0].shape) if arrays else ()


def _params_by_owner(params: Any, called: set[Path]) -> dict[Path, list[tuple[str, int]]]:
    """(name, size) of the parameters of each called module: the deepest that they lie under."""
    owned: dict[Path, list[tuple[str, int]]] = {}
    for key_path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        names = tuple(key.key for key in key_path)
        owner = next((names[:n] for n in range(len(names), -1, -1) if names[:n] in called), ())
        owned.setdefault(owner, []).append((names[-1], leaf.size))
    return owned


def _row(call: _Call, params: list[tuple[str, int]], first: bool) -> Row:
    kernels = sum(size for name, size in params if name == "kernel")
    return Row(
        path="/".join(call.path),
        kind=_kind(call.module),
        inputs=call.inputs,
        outputs=call.outputs,
        params=sum(size for _, size in params) if first else 0,
        flops=2 * kernels * _positions(call),
    )


def _positions(call: _Call) -> int:
    """How often the kernel is multiplied for one example: pixels, time steps, or once.

    The leading axis counts too: it is 1, or the parts of the example, such as the words of a
    sentence. A module of our own tells its `positions` itself.
    """
    if isinstance(call.module, WHOLE_LAYERS):
        return call.inputs[1]
    if isinstance(call.module, KERNEL_LAYERS):
        features = call.module.features
        channels = math.prod(features) if isinstance(features, Sequence) else features
        return math.prod(call.outputs) // channels
    return getattr(call.module, "positions", 0)


def _kind(module: nn.Module) -> str:
    """Class name with what tells two layers of a class apart, where the module says it."""
    name = type(module).__name__
    if isinstance(module, nn.Conv):
        kernel, stride = _sizes(module.kernel_size), _sizes(module.strides or 1)
        return f"{name} {kernel}" + ("" if set(stride) <= set("1x") else f"/{stride}")
    if isinstance(module, nn.RNN):
        return f"{name} {type(module.cell).__name__}"
    if isinstance(getattr(module, "rate", None), int | float):
        return f"{name} {module.rate:g}"
    if isinstance(getattr(module, "kind", None), str):
        return f"{name} {module.kind}"
    return name


def _sizes(value: int | Sequence[int]) -> str:
    return "x".join(map(str, value)) if isinstance(value, Sequence) else str(value)


def shape_text(shape: tuple) -> str:
    """A shape without its batch axis: (1, 32, 32, 3) -> "32x32x3"."""
    return "x".join(map(str, shape[1:])) or "scalar"


def engineering(number: float, unit: str = "") -> str:
    """Three digits with a prefix: (1_113_000_000, "FLOPs") -> "1.11 GFLOPs"."""
    prefixes = ["", "k", "M", "G", "T"]
    while abs(number) >= 999.5 and len(prefixes) > 1:
        number /= 1000
        del prefixes[0]
    return f"{number:.3g} {prefixes[0]}{unit}".rstrip()


def format_table(rows: Sequence[Row], title: str) -> str:
    """The rows as a table for the terminal, with the sums below.

    Args:
      rows: what `describe` returned.
      title: the first line.

    Returns:
      Lines of one width, without a newline at the end.
    """
    header = ("layer", "kind", "input", "output", "parameters", "FLOPs")
    body = [
        (
            row.path or "(the model)",
            row.kind,
            shape_text(row.inputs),
            shape_text(row.outputs),
            f"{row.params:,}",
            engineering(row.flops),
        )
        for row in rows
    ]
    params, flops = sum(row.params for row in rows), sum(row.flops for row in rows)
    total = (f"total of {len(rows)}", "", "", "", f"{params:,}", engineering(flops))
    widths = [max(map(len, column)) for column in zip(header, *body, total, strict=True)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [_line(cells, widths) for cells in (header, *body, total)]
    note = "FLOPs: 2 x multiply-adds, forward, one example; shapes without the batch axis"
    return "\n".join([title, rule, lines[0], rule, *lines[1:-1], rule, lines[-1], rule, note])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, the two columns of numbers to the right."""
    left = [cell.ljust(width) for cell, width in zip(cells[:4], widths[:4], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(cells[4:], widths[4:], strict=True)]
    return "  ".join(left + right)

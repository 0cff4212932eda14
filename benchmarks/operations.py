"""Where does a ResNet-18 step's time go? Its operations one by one, against PyTorch's.

    python -m benchmarks.operations

Every convolution that a training step has and its two gradients, batch normalisation with or
without ReLU, the addition at a block's end, these with their gradients: each as a program of its
own on the same arrays of 128 images, in float32 and, where the device multiplies it, in bfloat16,
each side in a process of its own. Results are compared before they are timed. A note tells how
often a step has the operation, and the multiplications and additions of the plain convolution
(Winograd's method makes fewer) that ours does in a second, as a share of those of a product of two
2,048 x 2,048 matrices there.

The sums are of all rows but the product's, each as often as a step has it. They are not the time of
a step (`python -m benchmarks.classifier`): that has the loss and the update too, XLA fuses what
stands here apart, and both libraries make both gradients of a convolution in one.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from benchmarks.device import precisions
from benchmarks.problems import CONVOLUTIONS, MAPS, PRODUCT, on_map
from benchmarks.report import Question, Row, show_all
from benchmarks.sides import Side, leaves, start, time_operation, twins

BATCH = 128
TOLERANCES = {"float32": 2e-3, "bfloat16": 5e-2}  # of the largest number of an array


def step_operations() -> dict[str, tuple[int, int]]:
    """By name: how often a step has the operation, and its multiplications and additions; or 0."""
    found = {}
    for layer in CONVOLUTIONS:
        # The first layer's input is the image, whose gradient nobody needs.
        forward, _, by_kernel = layer.operations
        for name in layer.operations if layer.channels > 3 else (forward, by_kernel):
            found[name] = layer.times, layer.flops(BATCH)
    for place, counts in MAPS.items():
        for name, times in zip(on_map(*place), counts, strict=True):
            found[name] = times, 0
    return found


def check(sides: Mapping[str, Side], name: str, tolerance: float) -> None:
    """Raise an AssertionError unless both sides make the same of an operation's arrays."""
    found, expected = (leaves(side.call(name)) for side in sides.values())
    for ours, theirs in zip(found, expected, strict=True):
        if theirs.ndim == 4:  # PyTorch's axes: [B, C, H, W], and of a kernel [K, C, h, w]
            theirs = theirs.transpose((2, 3, 1, 0) if "kernel" in name else (0, 2, 3, 1))
        limit = tolerance * np.abs(theirs).max()
        np.testing.assert_allclose(
            ours.astype(np.float32), theirs.astype(np.float32), atol=limit, rtol=0, err_msg=name
        )


def compare(dtype: str) -> list[Row]:
    """All operations in one type."""
    with start(twins("operations:calls", BATCH, dtype)) as sides:

        def seconds_of(name: str) -> dict[str, float]:
            check(sides, name, TOLERANCES[dtype])
            return time_operation(sides, name, rounds=5)

        product = seconds_of("matrix product")
        peak = 2 * PRODUCT**3 / product["athanor"]
        rows = [Row("matrix product", product, note=f"{peak / 1e9:.0f} GFLOP/s")]
        sums = dict.fromkeys(sides, 0.0)
        for name, (times, flops) in step_operations().items():
            seconds = seconds_of(name)
            share = f", {100 * flops / seconds['athanor'] / peak:.0f} %" if flops else ""
            rows.append(Row(name, seconds, note=f"x {times}{share}"))
            sums = {side: sums[side] + times * seconds[side] for side in sums}
    return [*rows, Row("sum over a step", sums)]


def question() -> Question:
    """What is timed."""
    return {f"ResNet-18, batch {BATCH}, {d}": partial(compare, d) for d in precisions()}


if __name__ == "__main__":
    show_all(question())

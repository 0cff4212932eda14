"""Where does a ResNet-18 step's time go? Its operations one by one, against PyTorch's.

    python -m benchmarks.operations

Every convolution that a training step has, its two gradients, and batch normalisation with ReLU
and their gradients, each as a program of its own on the same arrays of 128 images, in float32 and
in bfloat16, each side in a process of its own. Results are compared before anything is timed. A
note tells how often a step has the operation, and the multiplications and additions of the plain
convolution (Winograd's method makes fewer) that ours does in a second, as a share of what a product
of two 2,048 x 2,048 matrices reaches there.

The sums are of all the rows above, each as often as a step has it. A step has little else; but its
operations find their arrays in the caches, or not, in other ways.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from benchmarks.device import find_device
from benchmarks.problems import CONVOLUTIONS, MAPS, PRODUCT
from benchmarks.report import Row, Tables, measure
from benchmarks.sides import Side, start
from benchmarks.timing import time_sides

BATCH = 128
DTYPES = ("float32", "bfloat16")
PASSES = ("forward", "input's gradient", "kernel's gradient")
TOLERANCES = {"float32": 2e-3, "bfloat16": 5e-2}  # of the largest number of a result


def check(sides: Mapping[str, Side], name: str, tolerance: float) -> None:
    """Raise an AssertionError unless both sides make the same of a convolution's arrays."""
    found, expected = (np.asarray(side.call(name), np.float32) for side in sides.values())
    # PyTorch's axes: [B, C, H, W], and of a kernel [K, C, h, w].
    axes = (2, 3, 1, 0) if "kernel" in name else (0, 2, 3, 1)
    expected = expected.transpose(axes)
    limit = tolerance * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=limit, rtol=0, err_msg=name)


def times_of(sides: Mapping[str, Side], name: str) -> dict[str, float]:
    """Seconds by side."""
    return time_sides({n: side.timer(name) for n, side in sides.items()}, rounds=5)


def compare(dtype: str) -> list[Row]:
    """All operations in one type."""
    makers = {
        name: (f"benchmarks.{module}_operations:calls", BATCH, dtype)
        for name, module in {"athanor": "our", "PyTorch": "torch"}.items()
    }
    rows, sums = [], dict.fromkeys(makers, 0.0)

    def add(case: str, seconds: dict[str, float], times: int, note: str) -> None:
        rows.append(Row(case, seconds, note=note))
        for side in sums:
            sums[side] += times * seconds[side]

    with start(makers) as sides:
        product = times_of(sides, "product")
        peak = 2 * PRODUCT**3 / product["athanor"]
        rows.append(Row("matrix product", product, note=f"{peak / 1e9:.0f} GFLOP/s"))
        for layer in CONVOLUTIONS:
            # The first layer's input is the image, whose gradient nobody needs.
            for part in PASSES if layer.channels > 3 else (PASSES[0], PASSES[2]):
                name = f"{layer.name}, {part}"
                check(sides, name, TOLERANCES[dtype])
                seconds = times_of(sides, name)
                share = layer.flops(BATCH) / seconds["athanor"] / peak
                add(name, seconds, layer.times, f"x {layer.times}, {100 * share:.0f} %")
        for (height, channels), times in MAPS.items():
            name = f"{channels} channels on {height}x{height}"
            add(f"norm and ReLU, {name}", times_of(sides, name), times, f"x {times}")
    return [*rows, Row("sum over a step", sums)]


def main() -> Tables:
    """Time everything, print it as it comes."""
    find_device()
    return measure(
        {f"ResNet-18, batch {BATCH}, {dtype}": partial(compare, dtype) for dtype in DTYPES}
    )


if __name__ == "__main__":
    main()

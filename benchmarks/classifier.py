"""How fast is an image classifier? A training step and inference, against PyTorch.

    python -m benchmarks.classifier

The same network with the same weights on the same 128 images, on all cores or the GPU, each side in
a process of its own, in float32 and, where the device multiplies it, in bfloat16 (PyTorch's by
autocast): loss, gradients, batch statistics and the update of Nesterov SGD; then logits with
running statistics. The losses of two steps and, in float32, the logits after them are compared
before anything is timed. On a GPU 50 steps are timed at a time, as one program of ours, which is
how a run makes them, and without a wait for PyTorch's in between. On virtual machines a step of
ours in float32 was seen at two speeds, half as fast for seconds or minutes, when its two cores seem
to share no cache: see the README.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from benchmarks.device import find_device, precisions
from benchmarks.report import Question, Row, show_all
from benchmarks.sides import Side, agree, start, time_operation, twins
from common.parallel import CHUNK

BATCH = 128
NAMES = ("cnn", "resnet18")


def check(sides: Mapping[str, Side], dtype: str, platform: str) -> None:
    """Give theirs the weights of ours, and raise an AssertionError if a loss or logit differs."""
    half, on_gpu = dtype == "bfloat16", platform == "gpu"
    # A GPU rounds the factors of float32 products to TensorFloat-32's ten bits.
    first = 2e-2 if half else 2e-3 if on_gpu else 1e-4
    agree(sides, (first, 1e-1 if half or on_gpu else 1e-2))
    if not half:
        found, expected = (side.call("inference") for side in sides.values())
        tolerance = (0.2 if on_gpu else 0.05) * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=float(tolerance))


def compare(name: str, dtype: str, platform: str) -> list[Row]:
    """All operations of one network."""
    steps = CHUNK if platform == "gpu" else 1
    training = f"{steps} training steps" if platform == "gpu" else "training step"
    with start(twins("steps:classifier_calls", name, BATCH, dtype, steps)) as sides:
        check(sides, dtype, platform)
        return [
            Row(operation, time_operation(sides, operation, rounds=3))
            for operation in (training, "inference")
        ]


def question() -> Question:
    """What is timed."""
    platform = find_device()
    return {
        f"{name}, batch {BATCH}, {dtype}": partial(compare, name, dtype, platform)
        for name in NAMES
        for dtype in precisions()
    }


if __name__ == "__main__":
    show_all(question())

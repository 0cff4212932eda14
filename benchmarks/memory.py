"""How much memory does training take? The peak of a process, against batch and length.

    python -m benchmarks.memory

Every number is the largest resident memory of a fresh process that loads its library (and no
other), compiles and trains, a classifier for two steps, others for one: Python, libraries and
compiler included, as a user's machine needs it. The library alone has a row. Ours has
the allocator that a run sets (common/host.py), PyTorch the one it comes with. Both train
the same network on the same arrays in float32; that they agree is checked first.
"""

import math

from benchmarks.process import call
from benchmarks.report import Question, Row, show_all
from benchmarks.sides import agree, start, twins

BATCHES = (32, 128, 512)
LENGTHS = (1024, 4096, 16384)
HIDDEN = 128  # of the tagger
CHECKED_LENGTH = 64  # of sentences whose losses are compared
TOLERANCES = (1e-4, 1e-2)  # of the losses of two steps
SHAPE = (16, 3)  # B and K of the CRF
# Memory of the host is measured, so nothing may move to an accelerator.
ON_CPU = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def peaks(sides: dict[str, tuple], tolerance: float | None = None) -> dict[str, float]:
    """Bytes by side, each of which is a function "module:name" and its arguments.

    Raises:
        AssertionError: a tolerance is given and two losses differ by more, relatively.
    """
    outcomes = {name: call(*side, environment=ON_CPU) for name, side in sides.items()}
    if tolerance is not None:
        first, *others = (outcome.value for outcome in outcomes.values())
        assert all(math.isclose(first, other, rel_tol=tolerance) for other in others), outcomes
    return {name: float(outcome.peak) for name, outcome in outcomes.items()}


def classifier_rows() -> list[Row]:
    """A training step of `cnn` against the batch."""
    with start(twins("steps:classifier_calls", "cnn", BATCHES[0], "float32"), ON_CPU) as sides:
        agree(sides, TOLERANCES)
    rows = [Row("library alone", peaks(twins("steps:load")), "MiB")]
    for batch in BATCHES:
        rows.append(
            Row(f"batch {batch}", peaks(twins("steps:classifier_loss", "cnn", batch)), "MiB")
        )
    return rows


def tagger_rows() -> list[Row]:
    """A training step of a BiLSTM-CRF against the length of its one sentence."""
    with start(twins("steps:tagger_calls", HIDDEN, 2, CHECKED_LENGTH), ON_CPU) as sides:
        agree(sides, TOLERANCES)
    rows = []
    for length in LENGTHS:
        measured = peaks(twins("steps:tagger_loss", HIDDEN, 1, length))
        rows.append(Row(f"{length} tokens", measured, "MiB"))
    return rows


def crf_rows() -> list[Row]:
    """Loss and gradient of the CRF against the length of its sentences."""
    B, K = SHAPE
    rows = []
    for T in LENGTHS:
        sides = {
            "athanor": ("benchmarks.our_crf:loss", B, T, K, "scan"),
            "pytorch-crf": ("benchmarks.torch_crf:loss", B, T, K),
            "athanor, parallel": ("benchmarks.our_crf:loss", B, T, K, "parallel"),
        }
        rows.append(Row(f"{T} steps", peaks(sides, tolerance=1e-4), "MiB"))
    return rows


def question() -> Question:
    """What is measured."""
    B, K = SHAPE
    return {
        "a training step of cnn": classifier_rows,
        f"a training step of a BiLSTM-CRF, hidden {HIDDEN}, batch 1": tagger_rows,
        f"loss and gradient of a CRF, B {B}, K {K}": crf_rows,
    }


if __name__ == "__main__":
    show_all(question())

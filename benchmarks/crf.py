"""How fast is the CRF? Loss, gradient, decoding, marginals, draws, against two PyTorch libraries.

    python -m benchmarks.crf

All sides have the same parameters, emissions, tags and lengths (half to all of T), in float32,
and all cores, or the GPU, each in a process of its own. Ours goes through time as it does by
itself, step by step on a CPU and mostly in parallel on a GPU; a column has the other way.
torch-struct gets its edge potentials made in the timed part, as a tagger would have to.

Before any is timed, losses and gradients are compared with those of pytorch-crf in float64,
the scores of best paths with pytorch-crf's, first tags, marginals and entropies with
torch-struct's. A side that takes more than two seconds is then timed by one call, others in
interleaved rounds.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.device import find_device
from benchmarks.problems import PATHS, make_problem, path_score
from benchmarks.report import Question, Row, show_all
from benchmarks.sides import Side, leaves, start, time_operation

# (B, T, K): a tagger's batches; shorter and longer sentences; more tags.
SHAPES = (
    (64, 80, 3), (1, 80, 3), (16, 16, 3), (16, 1024, 3), (1, 16384, 3), (64, 80, 16), (16, 80, 128)
)  # fmt: skip
OPERATIONS = (
    "loss and gradient", "Viterbi", "marginals", "entropy", f"{PATHS}-best", f"{PATHS} draws"
)  # fmt: skip
SLOW_SECONDS = 2.0
OTHER_METHOD = {"cpu": "parallel", "gpu": "scan"}
MEMORY_LIMIT = 2**30  # bytes


def round_bytes(B: int, T: int, K: int) -> int:
    """Of the first round through time in parallel: float32 [B, T / 2, K, K, K]."""
    return 4 * B * (T // 2) * K**3


def gradient_error(gradient: Any, exact: Any) -> float:
    """The largest difference of two gradients' leaves, each as a share of the leaf's largest."""
    differences = [
        np.abs(one.astype(np.float64) - other).max() / np.abs(other).max()
        for one, other in zip(leaves(gradient), leaves(exact), strict=True)
    ]
    return float(max(differences))


def check(shape: tuple[int, int, int], sides: Mapping[str, Side]) -> str:
    """Compare losses, gradients, paths and marginals of all sides.

    Returns:
        A note on gradients that are more than a hundredth off, else "".

    Raises:
        AssertionError: a side finds something else, or ours is not exact.
    """
    ours, peer = sides["athanor"], sides["pytorch-crf"]
    total, exact = peer.call("exact loss and gradient")
    notes = []
    for name, side in sides.items():
        loss, gradient = side.call("loss and gradient")
        np.testing.assert_allclose(loss, total, rtol=1e-4, err_msg=name)
        if (error := gradient_error(gradient, exact)) > 1e-2:
            notes.append(f"{name}: float32 gradient {100 * error:.0f} % off")
        assert error < 2e-3 or not name.startswith("athanor"), (name, error)
    tags, marginals = ours.call("Viterbi")[0], ours.call("marginals")
    if (nbest := f"{PATHS}-best") in ours.names:
        one_by_one = sides.get("athanor, scan", ours)  # as n-best goes through time
        assert (ours.call(nbest)[0][:, 0] == one_by_one.call("Viterbi")[0]).all()
    problem = make_problem(*shape)
    for sentence, path in enumerate(peer.call("Viterbi")):
        best = tags[sentence, : problem.lengths[sentence]]
        score, other = (path_score(problem, sentence, found) for found in (best, path))
        # Of paths as good, either may be the best.
        np.testing.assert_allclose(score, other, rtol=1e-5)
    if "torch-struct" in sides:
        edges, paths = (sides["torch-struct"].call(name) for name in ("marginals", "Viterbi"))
        # [B, T - 1, next, previous]
        assert np.abs(edges[:, 0].sum(axis=1) - marginals[:, 0]).max() < 5e-3
        assert (paths[:, 0].sum(axis=1).argmax(-1) == tags[:, 0]).all()
        entropies = sides["torch-struct"].call("entropy")
        np.testing.assert_allclose(entropies, ours.call("entropy"), rtol=1e-3)
    for name, side in sides.items():
        if name.startswith("athanor, "):
            np.testing.assert_allclose(side.call("marginals"), marginals, atol=2e-3)
            np.testing.assert_allclose(side.call("entropy"), ours.call("entropy"), rtol=1e-3)
            np.testing.assert_allclose(side.call("Viterbi")[1], ours.call("Viterbi")[1], rtol=1e-5)
    return "; ".join(notes)


def compare(B: int, T: int, K: int, platform: str) -> list[Row]:
    """All operations of one shape."""
    shape, other = (B, T, K), OTHER_METHOD[platform]
    makers: dict[str, tuple] = {
        "athanor": ("benchmarks.our_crf:calls", *shape, "auto"),
        "pytorch-crf": ("benchmarks.torch_crf:pytorch_crf_calls", *shape),
    }
    left_out = ""
    if (size := round_bytes(*shape)) > MEMORY_LIMIT:
        left_out = f"parallel sides left out: {size / 2**30:.0f} GiB a round"
    else:
        makers["torch-struct"] = ("benchmarks.torch_crf:torch_struct_calls", *shape)
        makers[f"athanor, {other}"] = ("benchmarks.our_crf:calls", *shape, other)
    with start(makers) as sides:
        off = check(shape, sides)
        rows = []
        for operation in OPERATIONS:
            if operation in sides["athanor"].names:
                times = time_operation(sides, operation, rounds=3, slow_seconds=SLOW_SECONDS)
                notes = [left_out, off if operation == "loss and gradient" else ""]
                rows.append(Row(operation, times, note="; ".join(filter(None, notes))))
    return rows


def question() -> Question:
    """What is timed."""
    platform = find_device()
    return {"B {}, T {}, K {}".format(*s): partial(compare, *s, platform) for s in SHAPES}


if __name__ == "__main__":
    show_all(question())

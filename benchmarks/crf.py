"""How fast is the CRF? Loss and gradient, decoding and marginals, against two PyTorch libraries.

    python -m benchmarks.crf

All sides have the same parameters, emissions, tags and lengths (half to all of T), in float32,
and all cores, or the GPU. Ours goes through time step by step unless the column says parallel.
torch-struct gets its edge potentials made in the timed part, as a tagger would have to.

Before any is timed, losses and gradients are compared with those of pytorch-crf in float64,
the scores of best paths with pytorch-crf's, first tags and marginals with torch-struct's. A side
that takes more than two seconds is then timed by one call, others in interleaved rounds.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
import torch_struct

from benchmarks import our_steps, torch_steps
from benchmarks.device import prepare_both
from benchmarks.problems import make_problem, path_score
from benchmarks.report import Row, Tables, measure
from benchmarks.timing import time_sides
from benchmarks.torch_models import DEVICE, make_mask
from text import crf
from text.crf import CRFParams

# torch-struct declares no constraints of its arguments, of which torch then warns every time.
torch_struct.LinearChainCRF.arg_constraints = {}

Calls = dict[str, Callable[[], Any]]

# (B, T, K): a tagger's batches; shorter and longer sentences; more tags.
SHAPES = (
    (64, 80, 3), (1, 80, 3), (16, 16, 3), (16, 1024, 3), (1, 16384, 3), (64, 80, 16), (16, 80, 128)
)  # fmt: skip
PATHS = 5  # of n-best
NBEST_TAGS, NBEST_LENGTH = 16, 1024  # beyond these, n-best is left out
PEER_NBEST_TAGS = 3  # and here torch-struct's: with 16 tags one call took 79 s
SLOW_SECONDS = 2.0
PARALLEL = "athanor, parallel"
MEMORY_LIMIT = 2**30  # bytes


def our_calls(B: int, T: int, K: int) -> Calls:
    """Jitted, on the device, waited for."""
    problem = make_problem(B, T, K)
    params, emissions, lengths = jax.device_put(
        (CRFParams(*problem.params), problem.emissions, problem.lengths)
    )
    decode, marginals = jax.jit(crf.decode), jax.jit(partial(crf.marginals, method="scan"))
    nbest = jax.jit(partial(crf.decode_nbest, n=PATHS))
    wait = jax.block_until_ready
    calls: Calls = {
        "loss and gradient": our_steps.crf_gradient(B, T, K, "scan"),
        "Viterbi": lambda: wait(decode(params, emissions, lengths)),
        "marginals": lambda: wait(marginals(params, emissions, lengths)),
    }
    if K <= NBEST_TAGS and T <= NBEST_LENGTH:
        calls[f"{PATHS}-best"] = lambda: wait(nbest(params, emissions, lengths))
    return calls


def parallel_calls(B: int, T: int, K: int) -> Calls:
    """Ours, all steps at once: what `method="parallel"` is for."""
    problem = make_problem(B, T, K)
    placed = jax.device_put((CRFParams(*problem.params), problem.emissions, problem.lengths))
    marginals = jax.jit(partial(crf.marginals, method="parallel"))
    return {
        "loss and gradient": our_steps.crf_gradient(B, T, K, "parallel"),
        "marginals": lambda: jax.block_until_ready(marginals(*placed)),
    }


def pytorch_crf_calls(B: int, T: int, K: int) -> Calls:
    """torchcrf.CRF; it has neither n-best nor marginals."""
    problem = make_problem(B, T, K)
    layer = torch_steps.make_crf(problem.params).to(DEVICE)
    emissions = torch.from_numpy(problem.emissions).to(DEVICE)
    mask = make_mask(torch.from_numpy(problem.lengths.copy()), T)

    def viterbi() -> list[list[int]]:
        with torch.no_grad():
            return layer.decode(emissions, mask=mask)

    return {"loss and gradient": torch_steps.crf_gradient(B, T, K), "Viterbi": viterbi}


def torch_struct_calls(B: int, T: int, K: int) -> Calls:
    """torch_struct.LinearChainCRF over edges [B, T - 1, K, K], indexed (next, previous)."""
    problem = make_problem(B, T, K)
    emissions, tags, lengths, *scores = (
        torch.from_numpy(value.copy()).to(DEVICE)
        for value in (problem.emissions, problem.tags, problem.lengths, *problem.params)
    )
    params = CRFParams(*(score.requires_grad_() for score in scores))
    emissions, tags, lengths = emissions.requires_grad_(), tags.long(), lengths.long()
    times = torch.arange(T - 1, device=DEVICE)
    last, zero = times == lengths[:, None] - 2, torch.zeros((), device=DEVICE)

    def distribution() -> Any:
        edges = params.transitions.T[None, None] + emissions[:, 1:, :, None]
        start = (params.start + emissions[:, 0])[:, None, None, :]
        edges = edges + torch.where(times[None, :, None, None] == 0, start, zero)
        edges = edges + torch.where(last[:, :, None, None], params.end[None, None, :, None], zero)
        return torch_struct.LinearChainCRF(edges.contiguous(), lengths)

    parts = torch_struct.LinearChain.to_parts(tags, K, lengths=lengths).float()

    def loss_and_gradient() -> tuple:
        loss = -distribution().log_prob(parts).sum()
        return loss.detach(), torch.autograd.grad(loss, [*params, emissions])

    calls: Calls = {
        "loss and gradient": loss_and_gradient,
        "Viterbi": lambda: distribution().argmax,
        "marginals": lambda: distribution().marginals,
    }
    if K <= PEER_NBEST_TAGS:
        calls[f"{PATHS}-best"] = lambda: distribution().topk(PATHS)
    return {name: torch_steps.waiting(call) for name, call in calls.items()}


def round_bytes(B: int, T: int, K: int) -> int:
    """Of the first round through time in parallel: float32 [B, T / 2, K, K, K]."""
    return 4 * B * (T // 2) * K**3


def gradient_error(gradient: Any, exact: Any) -> float:
    """The largest difference of two gradients' leaves, each as a share of the leaf's largest."""
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(exact), strict=True)
    differences = [
        np.abs(np.asarray(one, np.float64) - np.asarray(other)).max() / np.abs(other).max()
        for one, other in pairs
    ]
    return float(max(differences))


def check(shape: tuple[int, int, int], sides: dict[str, Calls]) -> str:
    """Compare losses, gradients, paths and marginals of all sides, the first of which is ours.

    Returns:
        A note on gradients that are more than a hundredth off, else "".

    Raises:
        AssertionError: a side finds something else, or ours is not exact.
    """
    problem, ours = make_problem(*shape), sides["athanor"]
    total, exact = torch_steps.crf_gradient(*shape, torch.float64)()
    notes = []
    for name, calls in sides.items():
        loss, gradient = calls["loss and gradient"]()
        if name in ("pytorch-crf", "torch-struct"):
            gradient = [part.cpu() for part in gradient]
        np.testing.assert_allclose(float(loss), float(total), rtol=1e-4, err_msg=name)
        if (error := gradient_error(gradient, [part.cpu() for part in exact])) > 1e-2:
            notes.append(f"{name}: float32 gradient {100 * error:.0f} % off")
        assert error < 2e-3 or not name.startswith("athanor"), (name, error)
    tags, marginals = np.asarray(ours["Viterbi"]()[0]), np.asarray(ours["marginals"]())
    if nbest := ours.get(f"{PATHS}-best"):
        assert (np.asarray(nbest()[0])[:, 0] == tags).all()
    if "pytorch-crf" in sides:
        for sentence, path in enumerate(sides["pytorch-crf"]["Viterbi"]()):
            best = tags[sentence, : problem.lengths[sentence]]
            score, other = (path_score(problem, sentence, found) for found in (best, path))
            # Of paths as good, either may be the best.
            np.testing.assert_allclose(score, other, rtol=1e-5)
    if "torch-struct" in sides:
        # [B, T - 1, next, previous]
        edges = sides["torch-struct"]["marginals"]().detach().cpu().numpy()
        assert np.abs(edges[:, 0].sum(axis=1) - marginals[:, 0]).max() < 5e-3
        paths = sides["torch-struct"]["Viterbi"]().detach().cpu().numpy()
        assert (paths[:, 0].sum(axis=1).argmax(-1) == tags[:, 0]).all()
    if PARALLEL in sides:
        np.testing.assert_allclose(sides[PARALLEL]["marginals"](), marginals, atol=2e-3)
    return "; ".join(notes)


def compare(B: int, T: int, K: int) -> list[Row]:
    """All operations of one shape."""
    makers = {"athanor": our_calls, "pytorch-crf": pytorch_crf_calls}
    left_out = ""
    if round_bytes(B, T, K) <= MEMORY_LIMIT:
        makers |= {"torch-struct": torch_struct_calls, PARALLEL: parallel_calls}
    else:
        left_out = f"parallel sides left out: {round_bytes(B, T, K) / 2**30:.0f} GiB a round"
    sides = {name: make(B, T, K) for name, make in makers.items()}
    off = check((B, T, K), sides)
    rows = []
    for operation in sides["athanor"]:
        calls = {name: side[operation] for name, side in sides.items() if operation in side}
        times = time_sides(calls, rounds=3, slow_seconds=SLOW_SECONDS)
        notes = [left_out, off if operation == "loss and gradient" else ""]
        rows.append(Row(operation, times, note="; ".join(filter(None, notes))))
    return rows


def main() -> Tables:
    """Time everything, print it as it comes."""
    prepare_both()
    return measure({"B {}, T {}, K {}".format(*s): partial(compare, *s) for s in SHAPES})


if __name__ == "__main__":
    main()

"""How fast is the CRF? Against pytorch-crf and torch-struct, and step by step against parallel.

    python -m benchmarks.crf

All sides have the same parameters, emissions, tags and lengths (half to all of T), in float32,
and all cores. Before any is timed their losses and gradients are compared, the best paths with
pytorch-crf's, and first tags and marginals with torch-struct's. torch-struct gets its edge
potentials made in the timed part, as a tagger would have to.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
import torch_struct
import torchcrf

from benchmarks.report import Row, show
from benchmarks.timing import time_sides
from common.host import keep_freed_memory
from text import crf
from text.crf import CRFParams

# torch-struct declares no constraints of its arguments, of which torch then warns every time.
torch_struct.LinearChainCRF.arg_constraints = {}

Calls = dict[str, Callable[[], Any]]

# (B, T, K): the shapes of a tagger's batches, then more tags, then more steps.
SHAPES = ((64, 80, 3), (16, 24, 3), (64, 80, 16), (16, 1024, 3))
PATHS = 5  # of n-best
LENGTHS = (16, 128, 1024, 8192, 16384)


class Problem(NamedTuple):
    """A batch and parameters, on the host."""

    params: CRFParams
    emissions: np.ndarray
    tags: np.ndarray
    lengths: np.ndarray


def make_problem(B: int, T: int, K: int) -> Problem:
    """Normal scores; lengths from T / 2 to T, the longest first."""
    rng = np.random.default_rng(0)
    params = CRFParams(*(rng.normal(size=s).astype(np.float32) for s in ((K, K), (K,), (K,))))
    emissions = rng.normal(size=(B, T, K)).astype(np.float32)
    lengths = np.sort(rng.integers(T // 2, T + 1, B))[::-1].astype(np.int32)
    lengths[0] = T
    return Problem(params, emissions, rng.integers(0, K, (B, T)).astype(np.int32), lengths)


def our_calls(problem: Problem, method: str = "auto") -> Calls:
    """Jitted, on the device, waited for."""
    params, emissions, tags, lengths = jax.device_put(problem)

    def total(params: CRFParams, emissions: Any) -> Any:
        return crf.loss(params, emissions, tags, lengths, method=method).sum()

    gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    decode, marginals = jax.jit(crf.decode), jax.jit(partial(crf.marginals, method=method))
    nbest = jax.jit(partial(crf.decode_nbest, n=PATHS))
    wait = jax.block_until_ready
    return {
        "loss and gradient": lambda: wait(gradient(params, emissions)),
        "Viterbi": lambda: wait(decode(params, emissions, lengths)),
        f"{PATHS}-best": lambda: wait(nbest(params, emissions, lengths)),
        "marginals": lambda: wait(marginals(params, emissions, lengths)),
    }


def pytorch_crf_calls(problem: Problem) -> Calls:
    """torchcrf.CRF; it has neither n-best nor marginals."""
    B, T, K = problem.emissions.shape
    layer = torchcrf.CRF(K, batch_first=True)
    params = [layer.transitions, layer.start_transitions, layer.end_transitions]
    with torch.no_grad():
        for parameter, value in zip(params, problem.params, strict=True):
            parameter.copy_(torch.from_numpy(value))
    emissions = torch.from_numpy(problem.emissions).requires_grad_()
    tags = torch.from_numpy(problem.tags).long()
    mask = torch.arange(T) < torch.from_numpy(problem.lengths.copy())[:, None]

    def loss_and_gradient() -> tuple:
        loss = -layer(emissions, tags, mask=mask, reduction="sum")
        d_transitions, d_start, d_end, d_emissions = torch.autograd.grad(loss, [*params, emissions])
        return loss.detach(), (CRFParams(d_transitions, d_start, d_end), d_emissions)

    def viterbi() -> list[list[int]]:
        with torch.no_grad():
            return layer.decode(emissions, mask=mask)

    return {"loss and gradient": loss_and_gradient, "Viterbi": viterbi}


def torch_struct_calls(problem: Problem) -> Calls:
    """torch_struct.LinearChainCRF over edges [B, T - 1, K, K], indexed (next, previous)."""
    _, T, K = problem.emissions.shape
    params = CRFParams(*(torch.from_numpy(value).requires_grad_() for value in problem.params))
    emissions = torch.from_numpy(problem.emissions).requires_grad_()
    tags = torch.from_numpy(problem.tags).long()
    lengths = torch.from_numpy(problem.lengths.copy()).long()
    last = torch.arange(T - 1) == lengths[:, None] - 2

    def distribution() -> Any:
        edges = params.transitions.T[None, None] + emissions[:, 1:, :, None]
        start = (params.start + emissions[:, 0])[:, None, None, :]
        first = torch.arange(T - 1)[None, :, None, None] == 0
        edges = edges + torch.where(first, start, torch.zeros(()))
        edges = edges + torch.where(
            last[:, :, None, None], params.end[None, None, :, None], torch.zeros(())
        )
        return torch_struct.LinearChainCRF(edges.contiguous(), lengths)

    parts = torch_struct.LinearChain.to_parts(tags, K, lengths=lengths).float()

    def loss_and_gradient() -> tuple:
        loss = -distribution().log_prob(parts).sum()
        d_transitions, d_start, d_end, d_emissions = torch.autograd.grad(loss, [*params, emissions])
        return loss.detach(), (CRFParams(d_transitions, d_start, d_end), d_emissions)

    return {
        "loss and gradient": loss_and_gradient,
        "Viterbi": lambda: distribution().argmax,
        f"{PATHS}-best": lambda: distribution().topk(PATHS),
        "marginals": lambda: distribution().marginals,
    }


def check(problem: Problem, ours: Calls, peers: dict[str, Calls]) -> None:
    """Raise an AssertionError where a side finds something else."""
    loss, (d_params, d_emissions) = ours["loss and gradient"]()
    tags, _ = ours["Viterbi"]()
    marginals = np.asarray(ours["marginals"]())
    for name, calls in peers.items():
        other, (other_params, other_emissions) = calls["loss and gradient"]()
        np.testing.assert_allclose(float(loss), float(other), rtol=1e-4, err_msg=name)
        for mine, theirs in zip(
            (*d_params, d_emissions), (*other_params, other_emissions), strict=True
        ):
            np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=2e-3, err_msg=name)
        if name == "pytorch-crf":
            for row, path, length in zip(tags, calls["Viterbi"](), problem.lengths, strict=True):
                assert list(np.asarray(row[:length])) == path, name
        else:
            edges = calls["marginals"]().detach().numpy()  # [B, T - 1, next, previous]
            assert np.abs(edges[:, 0].sum(axis=1) - marginals[:, 0]).max() < 2e-3, name
            best = calls["Viterbi"]().detach().numpy()
            assert (best[:, 0].sum(axis=1).argmax(-1) == np.asarray(tags)[:, 0]).all(), name


def compare(B: int, T: int, K: int) -> list[Row]:
    """All operations of one shape."""
    problem = make_problem(B, T, K)
    ours = our_calls(problem)
    peers = {"pytorch-crf": pytorch_crf_calls(problem), "torch-struct": torch_struct_calls(problem)}
    check(problem, ours, peers)
    rows = []
    for operation, call in ours.items():
        sides = {name: calls[operation] for name, calls in peers.items() if operation in calls}
        case = f"{operation}, B {B}, T {T}, K {K}"
        rows.append(Row(case, time_sides({"athanor": call, **sides}, rounds=3)))
    return rows


def growth() -> list[Row]:
    """Loss and gradient of one sentence against its length, both ways through time."""
    rows = []
    for T in LENGTHS:
        problem = make_problem(1, T, 3)
        scan, parallel = (our_calls(problem, m)["loss and gradient"] for m in ("scan", "parallel"))
        np.testing.assert_allclose(scan()[0], parallel()[0], rtol=1e-5)
        sides = {"athanor": scan, "parallel in time": parallel}
        rows.append(Row(f"loss and gradient, B 1, T {T}, K 3", time_sides(sides, rounds=5)))
    return rows


def main() -> dict[str, list[Row]]:
    """Time everything, print it as it comes."""
    keep_freed_memory()
    found = {}
    for shape in SHAPES:
        found["crf {} x {} x {}".format(*shape)] = compare(*shape)
        show(*list(found.items())[-1])
    found["crf, growth with length"] = growth()
    show(*list(found.items())[-1])
    return found


if __name__ == "__main__":
    main()

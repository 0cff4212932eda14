"""The peers' CRFs, pytorch-crf and torch-struct, over the arrays of problems.py, in PyTorch alone.

torch-struct gets its edge potentials made in every call, as a tagger would have to.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch_struct
import torchcrf

from benchmarks.problems import PATHS, make_problem
from benchmarks.torch_models import DEVICE, make_mask
from benchmarks.torch_steps import waiting

# torch-struct declares no constraints of its arguments, of which torch then warns every time.
torch_struct.LinearChainCRF.arg_constraints = {}

# Beyond these, torch-struct's n-best and draws are left out: with 16 tags calls took 79 and 16 s.
FEW_TAGS = 3


def gradient(B: int, T: int, K: int, dtype: torch.dtype = torch.float32) -> Callable[[], tuple]:
    """pytorch-crf's loss and its gradients by transitions, start, end and emissions."""
    problem = make_problem(B, T, K)
    layer = make_crf(problem.params).to(DEVICE, dtype)
    params = [layer.transitions, layer.start_transitions, layer.end_transitions]
    emissions = torch.from_numpy(problem.emissions).to(DEVICE, dtype).requires_grad_()
    tags = torch.from_numpy(problem.tags).long().to(DEVICE)
    mask = make_mask(torch.from_numpy(problem.lengths.copy()), T)

    def gradient() -> tuple:
        loss = -layer(emissions, tags, mask=mask, reduction="sum")
        return loss.detach(), torch.autograd.grad(loss, [*params, emissions])

    return waiting(gradient)


def make_crf(params: tuple) -> torchcrf.CRF:
    """A CRF with these transitions [K, K], start [K] and end [K]."""
    layer = torchcrf.CRF(len(params[1]), batch_first=True)
    with torch.no_grad():
        for parameter, value in zip(
            (layer.transitions, layer.start_transitions, layer.end_transitions), params, strict=True
        ):
            parameter.copy_(torch.from_numpy(value))
    return layer


def pytorch_crf_calls(B: int, T: int, K: int) -> dict[str, Callable]:
    """torchcrf.CRF; it has neither n-best nor marginals. What is not timed is in float64."""
    problem = make_problem(B, T, K)
    layer = make_crf(problem.params).to(DEVICE)
    emissions = torch.from_numpy(problem.emissions).to(DEVICE)
    mask = make_mask(torch.from_numpy(problem.lengths.copy()), T)

    def viterbi() -> list[list[int]]:
        with torch.no_grad():
            return layer.decode(emissions, mask=mask)

    return {
        "loss and gradient": gradient(B, T, K),
        "Viterbi": viterbi,
        "exact loss and gradient": gradient(B, T, K, torch.float64),
    }


def torch_struct_calls(B: int, T: int, K: int) -> dict[str, Callable]:
    """torch_struct.LinearChainCRF over edges [B, T - 1, K, K], indexed (next, previous)."""
    problem = make_problem(B, T, K)
    emissions, tags, lengths, *scores = (
        torch.from_numpy(value.copy()).to(DEVICE)
        for value in (problem.emissions, problem.tags, problem.lengths, *problem.params)
    )
    params = [score.requires_grad_() for score in scores]
    transitions, start, end = params
    emissions, tags, lengths = emissions.requires_grad_(), tags.long(), lengths.long()
    times = torch.arange(T - 1, device=DEVICE)
    last, zero = times == lengths[:, None] - 2, torch.zeros((), device=DEVICE)

    def distribution() -> Any:
        edges = transitions.T[None, None] + emissions[:, 1:, :, None]
        first = (start + emissions[:, 0])[:, None, None, :]
        edges = edges + torch.where(times[None, :, None, None] == 0, first, zero)
        edges = edges + torch.where(last[:, :, None, None], end[None, None, :, None], zero)
        return torch_struct.LinearChainCRF(edges.contiguous(), lengths)

    parts = torch_struct.LinearChain.to_parts(tags, K, lengths=lengths).float()

    def loss_and_gradient() -> tuple:
        loss = -distribution().log_prob(parts).sum()
        return loss.detach(), torch.autograd.grad(loss, [*params, emissions])

    calls: dict[str, Callable] = {
        "loss and gradient": loss_and_gradient,
        "Viterbi": lambda: distribution().argmax,
        "marginals": lambda: distribution().marginals,
        "entropy": lambda: distribution().entropy,
    }
    if K <= FEW_TAGS:
        calls[f"{PATHS}-best"] = lambda: distribution().topk(PATHS)
        calls[f"{PATHS} draws"] = lambda: distribution().sample((PATHS,))
    return {name: waiting(call) for name, call in calls.items()}


def loss(B: int, T: int, K: int) -> float:
    """pytorch-crf's, for memory.py, in a process of its own."""
    return gradient(B, T, K)()[0].item()

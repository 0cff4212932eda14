"""The peers' training steps, in PyTorch alone: each maker returns a function that makes one.

A step returns its loss, the mean of its examples' as before the update.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchcrf
from torch import nn
from torch.nn import functional as F

from benchmarks.problems import (
    ADAM_RATE,
    CLIP,
    MOMENTUM,
    RATE,
    TAGS,
    make_images,
    make_problem,
    make_sentences,
)
from benchmarks.torch_models import DEVICE, Packed, TorchCNN, TorchResNet18, make_mask

NETWORKS: dict[str, Callable[[], nn.Module]] = {"cnn": TorchCNN, "resnet18": TorchResNet18}


class ClassifierStep:
    """Loss, gradients, batch statistics and an update by Nesterov SGD, of one batch.

    Channels are last in memory, the faster of PyTorch's two layouts on a CPU and for bfloat16.
    """

    def __init__(
        self,
        model: nn.Module,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        bfloat16: bool = False,
        steps: int = 1,
    ):
        """Args: images float32 [B, 32, 32, 3] and labels int64 [B] as `make_images` has them;
        `bfloat16` is by autocast; `steps` are made in a call, whose last loss is waited for."""
        self.model = model.to(DEVICE, memory_format=torch.channels_last)
        # A view: channels stay last.
        self._x = torch.from_numpy(images).to(DEVICE).permute(0, 3, 1, 2)
        self._y = torch.from_numpy(labels).to(DEVICE)
        self._autocast = torch.autocast(DEVICE.type, torch.bfloat16, enabled=bfloat16)
        self._steps = steps
        trained = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.SGD(trained, RATE, MOMENTUM, nesterov=True)

    def __call__(self) -> float:
        self.model.train()
        for _ in range(self._steps):
            self._optimizer.zero_grad()
            with self._autocast:
                logits = self.model(self._x)
            loss = F.cross_entropy(logits.float(), self._y)
            loss.backward()
            self._optimizer.step()
        return loss.item()

    def logits(self) -> np.ndarray:
        """Of the batch, by the running statistics: float32 [B, 10]."""
        self.model.eval()
        with torch.inference_mode(), self._autocast:
            return self.model(self._x).float().cpu().numpy()


class TaggerStep:
    """Loss, gradients and an update by clipped Adam, of one batch."""

    def __init__(self, hidden: int, batch_size: int, length: int):
        tokens, tags, lengths, vectors = make_sentences(batch_size, length)
        self.model = Packed(hidden, vectors, TAGS).to(DEVICE)
        self._batch = (
            torch.from_numpy(tokens).long().to(DEVICE),
            torch.from_numpy(tags).long().to(DEVICE),
            torch.from_numpy(lengths).long(),
        )
        self._optimizer = torch.optim.Adam(self.model.parameters(), ADAM_RATE)

    def __call__(self) -> float:
        self._optimizer.zero_grad()
        loss = self.model.loss(*self._batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self._optimizer.step()
        return loss.item()


def crf_gradient(B: int, T: int, K: int, dtype: torch.dtype = torch.float32) -> Callable[[], tuple]:
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


def waiting(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call, which then returns when the GPU has done what it was given."""
    if DEVICE.type == "cpu":
        return call

    def wait() -> Any:
        found = call()
        torch.cuda.synchronize()
        return found

    return wait


# What memory.py calls in processes of their own; they return the loss of the first step.


def load() -> None:
    """Nothing but PyTorch."""


def classifier_loss(name: str, batch_size: int) -> float:
    step = ClassifierStep(NETWORKS[name](), *make_images(batch_size))
    return [step(), step()][0]


def tagger_loss(hidden: int, batch_size: int, length: int) -> float:
    return TaggerStep(hidden, batch_size, length)()


def crf_loss(B: int, T: int, K: int) -> float:
    return crf_gradient(B, T, K)()[0].item()

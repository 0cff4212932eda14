"""The peers' training steps, in PyTorch alone: each maker returns a function that makes one.

A step returns its loss, the mean of its examples' as before the update.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.problems import (
    ADAM_RATE,
    CLIP,
    MOMENTUM,
    RATE,
    TAGS,
    make_images,
    make_sentences,
)
from benchmarks.torch_models import DEVICE, Packed, TorchAirbench, TorchCNN, TorchResNet18

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


def classifier_calls(name: str, batch_size: int, dtype: str, steps: int = 1) -> dict[str, Callable]:
    """Those of `our_steps.classifier_calls`, with "load", which takes its "parameters"."""
    images, labels = make_images(batch_size)
    network, bfloat16 = NETWORKS[name](), dtype == "bfloat16"
    step = ClassifierStep(network, images, labels, bfloat16=bfloat16)
    calls: dict[str, Callable] = {
        "load": partial(load_classifier, network),
        "training step": step,
        "inference": step.logits,
    }
    if steps > 1:
        several = ClassifierStep(network, images, labels, bfloat16=bfloat16, steps=steps)
        calls[f"{steps} training steps"] = several
    return calls


def airbench_calls(batch_size: int, dtype: str) -> dict[str, Callable]:
    """A step of airbench94's network."""
    images, labels = make_images(batch_size)
    bfloat16 = dtype == "bfloat16"
    return {"step": ClassifierStep(TorchAirbench(), images, labels, bfloat16=bfloat16)}


def tagger_calls(hidden: int, batch_size: int, length: int) -> dict[str, Callable]:
    """Those of `our_steps.tagger_calls`, with "load", which takes its "parameters"."""
    step = TaggerStep(hidden, batch_size, length)
    return {"load": partial(load_tagger, step.model), "training step": step}


def load_classifier(model: nn.Module, params: Mapping[str, np.ndarray]) -> None:
    """Give a network the parameters of ours, whose names its modules have."""
    names = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    values = {}
    for path, array in params.items():
        module, _, leaf = path.rpartition(".")
        if leaf == "kernel":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        values[f"{module}.{names[leaf]}"] = torch.from_numpy(array.copy())
    missing, unexpected = model.load_state_dict(values, strict=False)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert not unexpected and all(name.endswith(statistics) for name in missing), missing


def load_tagger(model: Packed, params: Mapping[str, np.ndarray]) -> None:
    """Give the peer the parameters of our tagger, of one layer."""
    values = {
        "head.weight": params["head.kernel"].T,
        "head.bias": params["head.bias"],
        "crf.transitions": params["crf.transitions"],
        "crf.start_transitions": params["crf.start"],
        "crf.end_transitions": params["crf.end"],
    }
    for direction, suffix in (("forward", ""), ("backward", "_reverse")):
        layer = f"encoder.layer1.{direction}"
        bias = params[f"{layer}.input.bias"]
        values |= {
            f"lstm.weight_ih_l0{suffix}": params[f"{layer}.input.kernel"].T,
            f"lstm.weight_hh_l0{suffix}": params[f"{layer}.recurrent.kernel"].T,
            f"lstm.bias_ih_l0{suffix}": bias,
            f"lstm.bias_hh_l0{suffix}": np.zeros_like(bias),
        }
    model.load_state_dict({n: torch.from_numpy(v.copy()) for n, v in values.items()})


def platform() -> str:
    """What PyTorch computes on: "cpu" or "gpu"."""
    return "cpu" if DEVICE.type == "cpu" else "gpu"


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

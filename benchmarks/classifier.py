"""How fast is an image classifier? A training step and inference, against PyTorch.

    python -m benchmarks.classifier

The same network with the same weights on the same 128 images, in float32 on all cores: loss,
gradients, batch statistics and the update of Nesterov SGD; then logits with running statistics.
The losses of two steps and the logits after them are compared before anything is timed.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.report import Row, show
from benchmarks.timing import time_sides
from common.host import keep_freed_memory
from common.state import create_state
from common.step import make_train_step
from vision import models

BATCH = 128
RATE, MOMENTUM = 0.05, 0.9
CNN_STAGES = models.CNN.stages


class TorchConvNorm(nn.Module):
    """Convolution, batch normalisation and perhaps ReLU; named as ours."""

    def __init__(self, before: int, channels: int, size: int = 3, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(before, channels, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor, relu: bool = True) -> torch.Tensor:
        x = self.norm(self.conv(x))
        return F.relu(x) if relu else x


class TorchCNN(nn.Module):
    """`vision.models.CNN`."""

    def __init__(self) -> None:
        super().__init__()
        before = 3
        for s, stage in enumerate(CNN_STAGES, 1):
            for c, channels in enumerate(stage, 1):
                self.add_module(f"stage{s}_conv{c}", TorchConvNorm(before, channels))
                before = channels
        self.hidden, self.head = nn.Linear(before * 4, 160), nn.Linear(160, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for s, stage in enumerate(CNN_STAGES, 1):
            for c in range(1, len(stage) + 1):
                x = self.get_submodule(f"stage{s}_conv{c}")(x)
            x = F.max_pool2d(x, 2)
        x = x.permute(0, 2, 3, 1).flatten(1)  # in our order
        return self.head(F.relu(self.hidden(x)))


class TorchBlock(nn.Module):
    """`vision.models.ResidualBlock`, basic."""

    def __init__(self, before: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = TorchConvNorm(before, channels, 3, stride)
        self.conv2 = TorchConvNorm(channels, channels)
        if stride > 1:
            self.shortcut = TorchConvNorm(before, channels, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(self.conv1(x), relu=False)
        return F.relu(y + (self.shortcut(x, relu=False) if hasattr(self, "shortcut") else x))


class TorchResNet18(nn.Module):
    """ResNet-18 with the CIFAR stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, before = TorchConvNorm(3, 64), 64
        for s in range(1, 5):
            for b in (1, 2):
                channels, stride = 32 * 2**s, 2 if s > 1 and b == 1 else 1
                self.add_module(f"stage{s}_block{b}", TorchBlock(before, channels, stride))
                before = channels
        self.head = nn.Linear(before, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for s in range(1, 5):
            for b in (1, 2):
                x = self.get_submodule(f"stage{s}_block{b}")(x)
        return self.head(x.mean(dim=(2, 3)))


def copy_weights(variables: dict[str, Any], model: nn.Module) -> None:
    """Give a PyTorch model the parameters of ours, whose names its modules have."""
    names = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    values = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables["params"])[0]:
        *module, leaf_name = (part.key for part in path)
        array = np.array(leaf)
        if leaf_name == "kernel":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        values[".".join([*module, names[leaf_name]])] = torch.from_numpy(array.copy())
    missing, unexpected = model.load_state_dict(values, strict=False)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert not unexpected and all(name.endswith(statistics) for name in missing), missing


def make_sides(name: str, peer: nn.Module) -> dict[str, dict[str, Callable[[], Any]]]:
    """The calls of both sides by operation; each has made two training steps already."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
    labels = rng.integers(0, 10, BATCH)
    model = models.create(name, 10, dropout=0.0)
    variables = jax.jit(lambda key: model.init(key, images[:1], train=False))(jax.random.key(0))
    copy_weights(variables, peer)

    def loss_fn(params: Any, batch_stats: Any, batch: dict, key: Any) -> tuple:
        logits, changed = model.apply(
            {"params": params, "batch_stats": batch_stats},
            batch["image"],
            train=True,
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        weight = jnp.float32(BATCH)
        return losses.sum(), (changed["batch_stats"], {"weight": weight, "loss": losses.sum()})

    tx = optax.sgd(RATE, MOMENTUM, nesterov=True)
    step = jax.jit(make_train_step(loss_fn, tx), donate_argnums=0)
    logits = jax.jit(lambda variables, x: model.apply(variables, x, train=False))
    batch = jax.device_put({"image": images, "label": labels})
    held, key = [create_state(dict(variables), tx, ema=False)], jax.random.key(0)

    def our_step() -> float:
        held[0], sums = step(held[0], batch, key)
        return float(sums["loss"]) / BATCH

    def our_logits() -> np.ndarray:
        return np.asarray(logits(held[0].variables, batch["image"]))

    x, y = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels)
    optimizer = torch.optim.SGD(peer.parameters(), RATE, MOMENTUM, nesterov=True)

    def torch_step() -> float:
        peer.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(peer(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    def torch_logits() -> np.ndarray:
        peer.eval()
        with torch.inference_mode():
            return peer(x).numpy()

    np.testing.assert_allclose(our_step(), torch_step(), rtol=1e-4)
    np.testing.assert_allclose(our_step(), torch_step(), rtol=1e-2)
    ours, theirs = our_logits(), torch_logits()
    np.testing.assert_allclose(ours, theirs, atol=0.05 * np.abs(theirs).max())
    return {
        "training step": {"athanor": our_step, "PyTorch": torch_step},
        "inference": {"athanor": our_logits, "PyTorch": torch_logits},
    }


def main() -> dict[str, list[Row]]:
    """Time every network, print it as it comes."""
    keep_freed_memory()
    found = {}
    for name, peer in (("cnn", TorchCNN()), ("resnet18", TorchResNet18())):
        sides = make_sides(name, peer)
        found[f"classifier {name}"] = [
            Row(f"{operation}, {name}, batch {BATCH}, float32", time_sides(both, rounds=3))
            for operation, both in sides.items()
        ]
        show(*list(found.items())[-1])
    return found


if __name__ == "__main__":
    main()

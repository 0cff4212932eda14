"""PyTorch's operations of a ResNet-18 step, each alone: the twins of our_operations.py's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.problems import (
    CONVOLUTIONS,
    MAPS,
    Convolution,
    make_arrays,
    make_factors,
    make_maps,
    on_map,
)
from benchmarks.torch_models import DEVICE
from benchmarks.torch_steps import waiting


def calls(batch_size: int, dtype: str) -> dict[str, Callable]:
    """See `our_operations.calls`; arrays have its order of axes when they are asked for."""
    kind = getattr(torch, dtype)
    found: dict[str, Callable] = {}
    for layer in CONVOLUTIONS:
        kernel, *maps = make_arrays(layer.shapes(batch_size))
        x, dy = (to_torch(array, kind) for array in maps)
        kernel = torch.from_numpy(kernel).to(DEVICE, kind).permute(3, 2, 0, 1)
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        made = (
            partial(forward, layer, x, kernel),
            partial(backward, layer, 0, x, kernel, dy),
            partial(backward, layer, 1, x, kernel, dy),
        )
        found |= zip(layer.operations, made, strict=True)
    for height, channels in MAPS:
        arrays = make_maps(batch_size, height, channels)
        x, other, dy = (to_torch(array, kind) for array in arrays)
        scale, bias = (fill(channels, device=DEVICE) for fill in (torch.ones, torch.zeros))
        made = (
            partial(norm, F.relu, x, scale, bias, dy),
            partial(norm, nn.Identity(), x, scale, bias, dy),
            partial(addition, x, other, dy),
        )
        found |= zip(on_map(height, channels), made, strict=True)
    factors = (torch.from_numpy(array).to(DEVICE, kind) for array in make_factors())
    found["matrix product"] = partial(torch.matmul, *factors)
    return {name: waiting(call) for name, call in found.items()}


def to_torch(array: np.ndarray, kind: torch.dtype) -> torch.Tensor:
    """[B, H, W, C] as [B, C, H, W] with the channels last in memory."""
    return torch.from_numpy(array).to(DEVICE, kind).permute(0, 3, 1, 2)


def forward(layer: Convolution, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return F.conv2d(x, kernel, None, layer.stride, layer.size // 2)


def backward(layer: Convolution, argument: int, *arrays: torch.Tensor) -> torch.Tensor:
    """The gradient by x or the kernel, of x, kernel and dy."""
    x, kernel, dy = arrays
    stride, padding = [layer.stride] * 2, [layer.size // 2] * 2
    wanted = [argument == 0, argument == 1, False]
    found = torch.ops.aten.convolution_backward(
        dy, x, kernel, None, stride, padding, [1, 1], False, [0, 0], 1, wanted
    )
    return found[argument]


def norm(activation: Callable, *arrays: torch.Tensor) -> Any:
    """What normalisation and activation make of x, and its gradients, of x, scale, bias and dy."""
    *inputs, dy = arrays
    x, scale, bias = (part.detach().requires_grad_() for part in inputs)
    y = activation(F.batch_norm(x, None, None, scale, bias, training=True))
    return y, torch.autograd.grad(y, (x, scale, bias), dy)


def addition(x: torch.Tensor, other: torch.Tensor, dy: torch.Tensor) -> Any:
    """A block's end, and the gradient by the first of its branches; the other's is the same."""
    x = x.detach().requires_grad_()
    y = F.relu(x + other)
    return y, torch.autograd.grad(y, (x,), dy)

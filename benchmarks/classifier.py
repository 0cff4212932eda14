"""How fast is an image classifier? A training step and inference, against PyTorch.

    python -m benchmarks.classifier

The same network with the same weights on the same 128 images, on all cores or the GPU, in float32
and in bfloat16 (PyTorch's by autocast): loss, gradients, batch statistics and the update of
Nesterov SGD; then logits with running statistics. The losses of two steps and, in float32, the
logits after them are compared before anything is timed. On a GPU 50 steps are timed at a time, as
one program of ours, which is how a run makes them, and without a wait for PyTorch's in between.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from benchmarks import our_steps, torch_steps
from benchmarks.device import prepare_both
from benchmarks.problems import make_images
from benchmarks.report import Row, Tables, measure
from benchmarks.timing import time_sides
from benchmarks.torch_models import DEVICE
from common.parallel import CHUNK
from vision import models

BATCH = 128
NAMES = ("cnn", "resnet18")


def copy_weights(params: dict[str, Any], model: nn.Module) -> None:
    """Give a PyTorch model the parameters of ours, whose names its modules have."""
    names = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    values = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        *module, leaf_name = (part.key for part in path)
        array = np.array(leaf)
        if leaf_name == "kernel":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        values[".".join([*module, names[leaf_name]])] = torch.from_numpy(array.copy())
    missing, unexpected = model.load_state_dict(values, strict=False)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert not unexpected and all(name.endswith(statistics) for name in missing), missing


def make_sides(
    name: str, batch_size: int, dtype: Any = jnp.float32
) -> dict[str, dict[str, Callable[[], Any]]]:
    """The calls of both sides by operation, after two training steps that agreed.

    Raises:
        AssertionError: a loss or a logit differs.
    """
    half = dtype == jnp.bfloat16
    on_gpu = DEVICE.type != "cpu"
    task = our_steps.classifier(name, batch_size, dtype=dtype)
    ours = our_steps.Trainer(task)
    images, labels = make_images(batch_size)
    network = torch_steps.NETWORKS[name]()
    make_theirs = partial(torch_steps.ClassifierStep, network, images, labels, bfloat16=half)
    theirs = make_theirs()
    copy_weights(ours.state.params, theirs.model)
    model, x = models.create(name, 10, dtype=dtype), jax.device_put(images)
    apply = jax.jit(lambda variables, x: model.apply(variables, x, train=False))

    def our_logits() -> np.ndarray:
        return np.asarray(apply(ours.state.variables, x))

    # A GPU rounds the factors of float32 products to TensorFloat-32's ten bits.
    np.testing.assert_allclose(ours(), theirs(), rtol=2e-2 if half else 2e-3 if on_gpu else 1e-4)
    np.testing.assert_allclose(ours(), theirs(), rtol=1e-1 if half or on_gpu else 1e-2)
    if not half:
        expected = theirs.logits()
        np.testing.assert_allclose(
            our_logits(), expected, atol=(0.2 if on_gpu else 0.05) * np.abs(expected).max()
        )
    training: dict[str, Callable[[], Any]] = {"athanor": ours, "PyTorch": theirs}
    if on_gpu:
        training = {
            "athanor": our_steps.Trainer(task, steps=CHUNK), "PyTorch": make_theirs(steps=CHUNK)
        }  # fmt: skip
    return {
        f"{CHUNK} training steps" if on_gpu else "training step": training,
        "inference": {"athanor": our_logits, "PyTorch": theirs.logits},
    }


def check(name: str, batch_size: int) -> None:
    """Raise an AssertionError unless both sides agree; for memory.py's processes."""
    make_sides(name, batch_size)


def compare(name: str, dtype: Any) -> list[Row]:
    """All operations of one network."""
    return [
        Row(operation, time_sides(both, rounds=3))
        for operation, both in make_sides(name, BATCH, dtype).items()
    ]


def main() -> Tables:
    """Time every network, print it as it comes."""
    prepare_both()
    return measure(
        {
            f"{name}, batch {BATCH}, {jnp.dtype(dtype).name}": partial(compare, name, dtype)
            for name in NAMES
            for dtype in (jnp.float32, jnp.bfloat16)
        }
    )


if __name__ == "__main__":
    main()

"""The train step as a GPU and a TPU would get it: lowered without the hardware, and read.

What is read is StableHLO, before XLA's own passes. It shows what XLA is asked for: which types,
which convolutions, which calls of the host. It does not show what XLA makes of it, such as
layouts, fusions, or the transposes that a layout needs.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.text import test_train as text
from tests.vision import test_train as vision

BATCH = 32
TYPES = {"bfloat16": "bf16", "float32": "f32"}
# An operation's line: its name, then the types of its operands and of its result.
OPERATION = re.compile(r"stablehlo\.(\w+)\b.* : \((.*)\) -> (\S+)")
TENSOR = re.compile(r"tensor<(?:([\dx]+)x)?(\w+)>")


@pytest.fixture(autouse=True)
def an_accelerator(monkeypatch):
    """What is asked by those who have forms for CPUs alone: convolutions, recurrence, CRF."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def lower(plan, state, chunk=False):
    """The program of the train step, or of a chunk of two, for each platform."""
    step, rows = plan.train_step, plan.epoch_batches(0)[0]
    if chunk:
        step, rows = plan.train_chunk, plan.devices.shard_steps([rows, rows])
    traced = step.trace(state, plan.data, rows, plan.key)
    return [traced.lower(lowering_platforms=(name,)).as_text() for name in ("cuda", "tpu")]


def read(program, *names):
    """The operations of these names: (name, shapes of the operands, their types)."""
    found = []
    for name, operands, _ in OPERATION.findall(program):
        if name in names:
            tensors = TENSOR.findall(operands)
            shapes = [tuple(map(int, shape.split("x"))) if shape else () for shape, _ in tensors]
            found.append((name, shapes, {dtype for _, dtype in tensors}))
    return found


def check(program, precision):
    """What holds for both tasks; the names of the convolutions and matrix products."""
    assert "f64" not in program and "c128" not in program
    # What waits for the host, or calls a library by name, would be one of these: gradients,
    # random numbers and the CRF need none.
    for name in ("custom_call", "infeed", "outfeed", "send", "recv"):
        assert f"stablehlo.{name}" not in program
    multiplied = read(program, "convolution", "dot_general")
    # The penalty on the kernels sums float32 squares: vectors, so no work for matrix units.
    matrices = [o for o in multiplied if any(len(shape) > 1 for shape in o[1])]
    assert set().union(*(types for _, _, types in matrices)) == {TYPES[precision]}
    return [name for name, _, _ in matrices]


# A plan that common/convolution.py changed would have loops: Winograd's form, of float32, and
# oneDNN's, of bfloat16, which needs `--xla_cpu_experimental_onednn_custom_call`.
@pytest.mark.parametrize(
    "model, precision, convolutions, dense",
    [("cnn", "bfloat16", 6, 2), ("resnet18", "float32", 20, 1)],
)
def test_images(tmp_path, model, precision, convolutions, dense):
    flags = {"model": model, "width": 0.5, "batch_size": BATCH, "precision": precision}
    plan, state, _ = vision.prepare(tmp_path / "run", vision.make_dataset(), **flags)
    loops = dict.fromkeys(lower(plan, state), 0) | dict.fromkeys(lower(plan, state, chunk=True), 1)
    for program, expected in loops.items():
        names = check(program, precision)
        # Each has a forward and two backward, but for the images, which need no gradient.
        assert names.count("convolution") == 3 * convolutions - 1
        assert names.count("dot_general") == 3 * dense
        assert program.count("stablehlo.while") == expected  # over the steps, nothing else
        # Kernels of dense layers are transposed, but no activation: those have four axes, or
        # the batch for their first.
        for _, [shape], _ in read(program, "transpose"):
            assert len(shape) == 2 and shape[0] != BATCH, f"an activation {shape} is transposed"


@pytest.mark.parametrize("precision", TYPES)
def test_tagger(tmp_path, precision):
    plan, state, _ = text.make(tmp_path, text.make_corpus(), crf=True, precision=precision)
    for program in lower(plan, state):
        # A product of the inputs of each direction, one of the states of both, and the head's:
        # each has a forward and two backward.
        assert check(program, precision) == ["dot_general"] * 12
        # Loops run over time, so [B, T, ...] becomes [T, B, ...]: of each direction what enters
        # it, and the states back; the CRF's emissions; and the gradients of all these. XLA makes
        # the transpose in the product of both recurrent kernels' gradients part of it.
        moved = [shape for _, [shape], _ in read(program, "transpose") if len(shape) == 3]
        assert len(moved) == 2 * (2 + 2) + 2 + 1


def test_a_step_of_five_taggers_launches_what_a_step_of_one_does(tmp_path):
    """common/together.py: stacked, the runs share every loop over time and every product."""
    plan, state, _ = text.make(tmp_path, text.make_corpus(), crf=True, precision="bfloat16")
    rows = {name: np.stack([part] * 5) for name, part in plan.epoch_batches(0)[0].items()}
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 5), (state, plan.data))
    traced = jax.jit(jax.vmap(plan.step)).trace(*stacked, rows, jnp.stack([plan.key] * 5))
    for alone, name in zip(lower(plan, state), ("cuda", "tpu"), strict=True):
        program = traced.lower(lowering_platforms=(name,)).as_text()
        assert check(program, "bfloat16") == check(alone, "bfloat16")
        assert program.count("stablehlo.while") == alone.count("stablehlo.while") > 0

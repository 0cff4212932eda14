"""How does cost grow? With devices, batch, length of a sentence, and seeds trained together.

    python -m benchmarks.scaling

Devices are made of the CPU, in a process of their own, and share one batch: as `--devices` makes
them where each has a core, and beyond as virtual ones with more threads, which shows what splitting
costs, not what more hardware gives. JAX runs the programs of several devices in threads of theirs,
those of one in place (common/host.py). Seeds are trained in one step under `vmap`, against a step
for each. Dependent steps are counted in the program, and are what a long sentence costs on an
accelerator that does all else at once. All is in float32, and losses of all ways are compared
before they are timed.
"""

from collections.abc import Callable

import jax
import numpy as np

from benchmarks import our_crf, our_steps
from benchmarks.depth import depth
from benchmarks.problems import make_problem
from benchmarks.process import call
from benchmarks.report import Question, Row, show_all
from benchmarks.timing import Timer, time_sides, timer
from common.host import cores, prepare_host
from common.parallel import local_devices
from text import crf
from text.crf import CRFParams

DEVICES, DEVICES_BATCH = (1, 2, 4, 8), 128
BATCHES = (8, 64, 512)
TAGGER = (128, 32)  # units of a direction, tokens of a sentence
LENGTHS = (16, 128, 1024, 4096, 16384)
SEEDS = (1, 2, 5)


def devices_point(count: int, batch_size: int) -> tuple[list[float], float]:
    """Losses of the first two steps of `cnn` on virtual devices, and seconds of a step."""
    devices = local_devices(count)
    step = our_steps.Trainer(our_steps.classifier("cnn", batch_size, devices.axis_name), devices)
    losses = [step(), step()]
    return losses, time_sides({"athanor": timer(step)}, rounds=3)["athanor"]


def device_rows() -> list[Row]:
    """An image of a training step, against how many devices share the batch."""
    rows: list[Row] = []
    expected, alone = None, 0.0
    for count in DEVICES:
        environment = {"JAX_PLATFORMS": "cpu"}
        if count > len(cores()):
            environment |= virtual(count)
        point = "benchmarks.scaling:devices_point"
        losses, seconds = call(point, count, DEVICES_BATCH, environment=environment).value
        expected, alone = expected or losses, alone or seconds
        np.testing.assert_allclose(losses, expected, rtol=1e-2)
        np.testing.assert_allclose(losses[0], expected[0], rtol=1e-4)
        sides = {"athanor": seconds / DEVICES_BATCH, "1 device": alone / DEVICES_BATCH}
        rows.append(Row(f"devices {count}", sides))
    return rows


def virtual(count: int) -> dict[str, str]:
    """The environment of more devices than cores."""
    flags = (
        f"--xla_force_host_platform_device_count={count} "
        "--xla_cpu_collective_call_terminate_timeout_seconds=600"
    )
    # Devices wait for one another in XLA's threads, of which there must be enough.
    return {"XLA_FLAGS": flags, "NPROC": str(2 * count)}


def batch_rows(make: Callable[[int], our_steps.Task]) -> list[Row]:
    """An example of a training step, against the batch."""
    rows, smallest = [], 0.0
    for batch_size in BATCHES:
        step = our_steps.Trainer(make(batch_size))
        seconds = time_sides({"athanor": timer(step)}, rounds=3)["athanor"] / batch_size
        smallest = smallest or seconds
        sides = {"athanor": seconds, f"batch {BATCHES[0]}": smallest}
        rows.append(Row(f"batch {batch_size}", sides))
    return rows


def length_rows() -> list[Row]:
    """Loss and gradient of a CRF, by both ways through time."""
    rows = []
    for T in LENGTHS:
        scan, parallel = (our_crf.gradient(1, T, 3, m) for m in ("scan", "parallel"))
        np.testing.assert_allclose(scan()[0], parallel()[0], rtol=1e-5)
        sides = {"step by step": timer(scan), "parallel in time": timer(parallel)}
        rows.append(Row(f"{T} steps", time_sides(sides, rounds=5)))
    return rows


def depth_rows() -> list[Row]:
    """Operations of the same programs that have to wait for one another."""
    rows = []
    for T in LENGTHS:
        problem = make_problem(1, T, 3)

        def count(method: str, problem=problem) -> float:
            def total(params, emissions):
                return crf.loss(params, emissions, problem.tags, problem.lengths, method=method)[0]

            gradient = jax.value_and_grad(total, argnums=(0, 1))
            return float(depth(gradient, CRFParams(*problem.params), problem.emissions))

        sides = {"parallel in time": count("parallel"), "step by step": count("scan")}
        rows.append(Row(f"{T} steps", sides, "operations"))
    return rows


def seed_rows(task: our_steps.Task) -> list[Row]:
    """A training step of several seeds."""
    rows, one = [], our_steps.Trainer(task)
    expected = one()
    for seeds in SEEDS:
        together = our_steps.SeedsTrainer(task, seeds)
        np.testing.assert_allclose(together()[0], expected, rtol=1e-4)

        def apart(seeds: int = seeds) -> None:
            for _ in range(seeds):
                one()

        sides: dict[str, Timer] = {
            "one step under vmap": timer(together),
            "a step for each": timer(apart),
        }
        rows.append(Row(f"seeds {seeds}", time_sides(sides, rounds=3)))
    return rows


def question() -> Question:
    """What is measured."""
    prepare_host()
    hidden, length = TAGGER
    return {
        f"devices: an image, cnn, batch {DEVICES_BATCH}": device_rows,
        "batch: an image of a training step, cnn": lambda: batch_rows(
            lambda B: our_steps.classifier("cnn", B)
        ),
        f"batch: a sentence of a training step, BiLSTM-CRF, hidden {hidden}, {length} tokens": (
            lambda: batch_rows(lambda B: our_steps.tagger(hidden, B, length))
        ),
        "length: loss and gradient of a CRF, B 1, K 3": length_rows,
        "length: dependent operations of the same": depth_rows,
        "seeds: BiLSTM-CRF, hidden 32, batch 16, 32 tokens": lambda: seed_rows(
            our_steps.tagger(32, 16, 32)
        ),
        "seeds: cnn_b, batch 32": lambda: seed_rows(our_steps.classifier("cnn_b", 32)),
    }


if __name__ == "__main__":
    show_all(question())

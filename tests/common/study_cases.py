"""A toy task for studies, whose runs are a script of a few lines instead of a training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.config import check_range, override
from common.study import Budget, Study, Task
from common.study_table import Result

FAKE_LAUNCH = Path(__file__).with_name("fake_launch.py")


@dataclass(frozen=True)
class ToyConfig:
    task: str = "toy"
    config: str = "toy"
    epochs: int = 2
    rate: float = 0.5
    label: str | None = None
    twice: bool = False
    data_dir: str | None = None


def check(settings):
    config = override(ToyConfig(), {k: v for k, v in settings.items() if k != "seed"})
    check_range("--rate", config.rate, 0, 100)
    return config


TASK = Task(
    "toy",
    ToyConfig,
    check,
    {"test/accuracy": "test accuracy", "test/loss": "test loss", "gap/accuracy": "gap"},
    (("loss", "loss"), ("accuracy", "accuracy")),
)

STUDY = Study(
    name="toy-rates",
    question="Is a rate of 1 & more <better> than half?",
    task="toy",
    arms={"half": {"rate": 0.5}, "one <b>": {"rate": 1.0}, "two | 2": {"rate": 2.0}},
    baseline="half",
    metric="test/accuracy",
    budgets={"quick": Budget({"epochs": 2}, note="two epochs")},
    seeds=2,
    reported={"half": 0.55, "one <b>": 0.6},
    shown=("test/loss",),
    source="report <T>",
)


def make_result(arm, seed, accuracy, *, counts=None, epochs=3):
    """A run with this test accuracy."""
    history = [
        {
            "epoch": e, "step": 5 * e, "train/loss": 1 / e, "val/loss": 1.2 / e,
            "train/accuracy": accuracy * e / epochs, "val/accuracy": 0.9 * accuracy * e / epochs,
        }
        for e in range(1, epochs + 1)
    ]  # fmt: skip
    values = {
        "test/accuracy": accuracy, "test/loss": 1 - accuracy, "best_epoch": 2,
        "seconds": 30.0 + seed, "params": 1234,
    }  # fmt: skip
    return Result(arm, seed, values, history, counts, "1 x cpu, float32, jax 0.0")


def make_results():
    """Two arms of three seeds, with counts of 40 examples, and a third arm of one seed."""
    rng = np.random.default_rng(7)
    results = []
    for arm, scores in {
        "half": (0.5, 0.52, 0.48), "one <b>": (0.6, 0.63, 0.57), "two | 2": (0.4,)
    }.items():  # fmt: skip
        for seed, score in enumerate(scores):
            right = rng.random(40) < score
            counts = np.stack([np.ones(40), np.ones(40), right], axis=1).astype(np.int64)
            results.append(make_result(arm, seed, score, counts=counts))
    return results

"""`--mode=eval`: score a finished run's selected weights again."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import config as configs
from common import run_folder
from common.checkpoint import Checkpoints
from common.errors import InputError
from common.training import make_optimization
from common.writer import say, warn
from vision import scoring
from vision.config import VisionConfig, check_config
from vision.train import (
    Classifier,
    Scorer,
    init_state,
    load_dataset,
    make_classifier,
)


@dataclasses.dataclass(frozen=True)
class TrainedClassifier:
    """A run read back: its classifier, the selected variables and what they were made from."""

    config: VisionConfig
    classifier: Classifier
    variables: dict[str, Any]
    fingerprint: str


def load_run(run: Path, changes: dict[str, Any]) -> TrainedClassifier:
    """Read the selected weights of a run folder; nothing but the folder is needed.

    Args:
        run: the folder.
        changes: settings that may differ from the run's: where the data and devices are.

    Raises:
        InputError: it is no run folder, or has no checkpoint.
    """
    config = configs.load(VisionConfig, run / "config.json")
    if "dataset" in changes:  # then the run's folder is not meant
        config = dataclasses.replace(config, data_dir=None)
    config = configs.override(config, changes)
    check_config(config)
    inputs = run_folder.load_inputs(run, ("classes", "mean", "std", "fingerprint"))
    classifier = make_classifier(config, *checked_inputs(inputs, run / "inputs.json"))
    # The optimiser only gives the checkpoint its shape, which no number of steps changes.
    tx, _ = make_optimization(config, steps=10_000)
    like = classifier.devices.abstract(init_state(config, classifier, tx))
    state, _ = Checkpoints(run / "checkpoints").restore("best", like)
    return TrainedClassifier(config, classifier, state.variables, inputs["fingerprint"])


def checked_inputs(
    inputs: dict[str, Any], path: Path
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Class names, and mean and deviation of the channels as float32 [3]."""
    classes = inputs["classes"]
    try:
        mean, std = (np.array(inputs[name], np.float32) for name in ("mean", "std"))
        usable = (
            mean.shape == std.shape == (3,) and np.isfinite(mean).all() and np.isfinite(std).all()
        )
        usable = usable and (std > 0).all()
    except (ValueError, TypeError, OverflowError):
        usable = False
    if not usable or not isinstance(classes, list) or not all(type(c) is str for c in classes):
        raise InputError(f"{path} is damaged: copy the whole run folder again")
    return tuple(classes), mean, std


def _difference(found: Sequence[str], known: Sequence[str]) -> str:
    """What is wrong with the classes that were found."""
    lacking = [name for name in known if name not in found]
    strange = [name for name in found if name not in known]
    parts = {"lacks": lacking, "also has": strange}
    told = [
        f"{verb} {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        for verb, names in parts.items()
        if names
    ]
    return " and ".join(told) or "has them in another order"


def evaluate(run: Path, changes: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Score the test split, print the scores and return them.

    Raises InputError for data of other classes than the run's.
    """
    trained = load_run(run, changes)
    classes = trained.classifier.classes
    dataset = load_dataset(trained.config, log=warn)
    if dataset.classes != classes:
        raise InputError(
            f"--dataset={dataset.name} has other classes than the run in {run}: it "
            f"{_difference(dataset.classes, classes)}"
        )
    if dataset.fingerprint != trained.fingerprint:
        warn("these data are not those that the run was trained on")
    tta = trained.config.tta
    logits = Scorer(trained.classifier, tta).score_split(trained.variables, dataset.test)
    scores = scoring.full_score(logits, dataset.test.labels, classes) | {"tta": tta}
    if as_json:
        say(json.dumps(scores))
        return scores
    per_class = scores["test/per_class"]
    width = max(len(name) for name in classes)
    for name, accuracy in per_class.items():
        say(f"{name:<{width}}  " + ("no images" if accuracy is None else f"{accuracy:.4f}"))
    say(
        f"test accuracy {scores['test/accuracy']:.4f}, test loss {scores['test/loss']:.4f}, "
        f"calibration error {scores['test/ece']:.4f} on {len(dataset.test.labels)} images"
        + (f" by --tta={tta}" if tta != "none" else "")
    )
    return scores

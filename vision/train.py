"""Train an image classifier and report on it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from common import processes, run_folder
from common.batching import epoch_batches, gather, steps_per_epoch
from common.checkpoint import Checkpoints
from common.parallel import tell_choices
from common.plan import Plan, Progress, Session, summarise
from common.state import TrainState, count_parameters
from common.step import LossFn, make_train_step
from common.training import make_optimization, program_of, step_numbers, with_numbers
from common.writer import RunWriter, say
from vision import datasets, report, scoring
from vision.airbench import whiten
from vision.augment import make_augment
from vision.classifier import (
    Classifier,
    Scorer,
    init_state,
    make_classifier,
)
from vision.config import VisionConfig
from vision.datasets import Dataset

# Enough for the covariance of small patches.
WHITENING_IMAGES = 5000


def make_loss_fn(classifier: Classifier, augment: Callable, label_smoothing: float) -> LossFn:
    """Cross-entropy of augmented images against smoothed, perhaps mixed, targets."""

    def loss_fn(params: Any, batch_stats: Any, batch: dict, key: Array) -> tuple[Array, tuple]:
        augment_key, dropout_key = jax.random.split(key)
        batch = augment(augment_key, batch)
        logits, changed = classifier.model.apply(
            {"params": params, "batch_stats": batch_stats},
            classifier.normalise(batch["image"]),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        target = optax.smooth_labels(batch["target"], label_smoothing)
        losses = optax.softmax_cross_entropy(logits, target)  # [B]
        hits = logits.argmax(-1) == batch["target"].argmax(-1)
        weight = batch["weight"]
        loss = (losses * weight).sum()
        sums = {"weight": weight.sum(), "loss": loss, "accuracy": (hits * weight).sum()}
        return loss, (changed.get("batch_stats", {}), sums)

    return loss_fn


def load_dataset(config: VisionConfig, log: Callable[[str], None] = say) -> Dataset:
    """The data set of a run; `log` receives lines for the person."""
    return datasets.load(
        config.dataset,
        data_dir=config.data_dir,
        val_fraction=config.val_fraction,
        train_fraction=config.train_fraction,
        seed=config.seed,
        log=log,
    )


class Prepared(NamedTuple):
    """A run before its first step."""

    config: VisionConfig
    dataset: Dataset
    classifier: Classifier
    scorer: Scorer


def prepare(config: VisionConfig, dataset: Dataset) -> Prepared:
    """Make the model for a data set. Raises InputError for what cannot be."""
    classifier = make_classifier(config, dataset.classes, dataset.mean, dataset.std)
    return Prepared(config, dataset, classifier, Scorer(classifier))


def make_step(prepared: Prepared, steps: int) -> Callable[..., tuple]:
    """The step of a plan, of whose epochs each has so many."""
    config, dataset, classifier, _ = prepared
    axis_name = classifier.devices.axis_name
    augment = make_augment(config.augment, len(dataset.classes), axis_name=axis_name)

    def train_step(state: TrainState, data: dict, rows: dict, key: Array) -> tuple:
        own = with_numbers(config, data["numbers"])
        tx, _ = make_optimization(own, steps)
        loss_fn = make_loss_fn(
            replace(classifier, **data["channels"]), augment, own.label_smoothing
        )
        step = make_train_step(loss_fn, tx, ema_decay=config.ema, axis_name=axis_name)
        return step(state, gather(data["split"], rows), key)

    return train_step


def make_plan(
    prepared: Prepared, checkpoints: Checkpoints, writer: RunWriter
) -> tuple[Plan, TrainState]:
    """What `fit` needs, and the state before the first step (not yet on all devices)."""
    config, dataset, classifier, scorer = prepared
    devices = classifier.devices
    devices.check_batch(config.batch_size)
    size = len(dataset.train.labels)
    steps = steps_per_epoch(size, config.batch_size)
    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    val_images = scorer.place(dataset.val.images)

    def evaluate(state: TrainState) -> dict[str, float]:
        if not len(dataset.val.labels):
            return {}
        logits = scorer.logits(state.variables, val_images, len(dataset.val.labels))
        return scoring.score(logits, dataset.val.labels, "val")

    data = {
        "split": {"image": dataset.train.images, "label": dataset.train.labels},
        "channels": {"mean": classifier.mean, "std": classifier.std},
        "numbers": step_numbers(config),
    }
    tx, schedule = make_optimization(config, steps)
    plan = Plan(
        step=make_step(prepared, steps),
        chunk_steps=devices.chunk_steps(steps),
        data=devices.replicate(data),
        epoch_batches=lambda epoch: epoch_batches(config.seed, epoch, size, config.batch_size),
        key=devices.replicate(train_key),
        evaluate=evaluate,
        schedule=schedule,
        devices=devices,
        checkpoints=checkpoints,
        writer=writer,
        epochs=config.epochs,
        steps_per_epoch=steps,
        batch_size=config.batch_size,
        select="val/accuracy" if len(dataset.val.labels) else None,
        patience=config.patience,
        checkpoint_seconds=config.checkpoint_minutes * 60,
        onednn=classifier.pays_with_onednn,
        unit="images",
    )
    state = init_state(config, classifier, tx, init_key)

    def sample() -> Array:
        images = jnp.asarray(dataset.train.images[:WHITENING_IMAGES], jnp.float32) / 255
        return classifier.normalise(images)

    return plan, whiten(state, sample)


def begin(config: VisionConfig, workdir: Path, *, resume: bool, command: str) -> Session:
    """All of a run that comes before its first step.

    Args:
        config: a checked configuration.
        workdir: the run folder: new, or with `resume` perhaps that of a stopped run.
        resume: continue from the newest checkpoint, bit for bit.
        command: what was typed, for summary.json.
    """
    processes.from_first(lambda: run_folder.check_run(workdir, config, resume=resume))
    code = run_folder.describe_code(config)
    prepared = prepare(config, processes.first_then_others(lambda: load_dataset(config)))
    dataset, classifier = prepared.dataset, prepared.classifier
    inputs = {
        "classes": list(dataset.classes),
        "mean": dataset.mean.tolist(),
        "std": dataset.std.tolist(),
        "fingerprint": dataset.fingerprint,
    }
    plan, state = make_plan(prepared, Checkpoints(workdir / "checkpoints"), RunWriter(workdir))
    run_folder.open_run(workdir, config, inputs)
    first_command = run_folder.note_command(workdir, command)
    _tell_start(config, dataset, state)
    tell_choices(
        classifier.devices,
        classifier.precision,
        chunk_steps=plan.chunk_steps,
        onednn=plan.onednn,
    )
    say(f"run folder: {workdir}")
    facts = {"command": first_command, **code}
    finish = partial(_finish, prepared, workdir, facts, plan)
    return Session(plan, state, finish, program_of(config))


def _finish(
    prepared: Prepared,
    workdir: Path,
    facts: dict[str, Any],
    plan: Plan,
    best: TrainState,
    progress: Progress,
) -> dict[str, Any]:
    """Score the selected state, write what a run leaves; `facts` are for summary.json."""
    config, dataset, classifier, scorer = prepared
    with run_folder.scoring():
        test_logits = scorer.score_split(best.variables, dataset.test)
        scores = scoring.full_score(test_logits, dataset.test.labels, dataset.classes)
        if config.tta != "none":
            logits = Scorer(classifier, config.tta).score_split(best.variables, dataset.test)
            scores |= scoring.tta_score(logits, dataset.test.labels, config.tta)
    summary = {
        "task": config.task,
        "config": config.config,
        "model": config.model,
        "dataset": config.dataset,
        "augment": config.augment,
        "seed": config.seed,
        **summarise(plan, progress),
        **scores,
        "params": count_parameters(best.params),
        "precision": classifier.precision,
        "data": {"source": dataset.source, "fingerprint": dataset.fingerprint},
        **facts,
    }
    report.tell(summary)
    hits = scoring.example_counts(test_logits, dataset.test.labels)
    run_folder.write_summary(workdir, summary, {"accuracy": hits})
    shown = (plan.writer.history, progress.best_epoch, dataset, test_logits)
    run_folder.try_to_draw(workdir, lambda: report.draw(workdir, config, *shown))
    return summary


def _tell_start(config: VisionConfig, dataset: Dataset, state: TrainState) -> None:
    sizes = [len(split.labels) for split in (dataset.train, dataset.val, dataset.test)]
    say(f"{dataset.name} from {dataset.source}: {sizes[0]} train, {sizes[1]} val, {sizes[2]} test")
    say(f"{config.model}, {count_parameters(state.params):,} parameters")

"""The real train step: one device and eight, what is learnt, and a whole small run."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest
from scipy.ndimage import gaussian_filter

from common import loop
from common.batching import train_rows
from common.checkpoint import Checkpoints
from common.writer import RunWriter
from vision import train as training
from vision.arrays import Split, channel_statistics
from vision.augment import make_augment
from vision.classifier import Scorer, make_classifier
from vision.config import make_config
from vision.datasets import Dataset

SMALL = {"model": "cnn_b", "width": 0.125, "batch_size": 32, "devices": 1}


def make_dataset(train=96, val=16, test=16, side=32):
    """Coloured noise, smooth over two pixels, in as many brightnesses as there are classes."""
    rng = np.random.default_rng(0)
    size = train + val + test
    labels = rng.integers(0, 4, size).astype(np.int32)
    noise = gaussian_filter(rng.normal(size=(size, side, side, 3)), (0, 1, 1, 0))
    levels = 90 + 25 * labels[:, None, None, None] + 50 * noise / noise.std()
    images = levels.clip(0, 255).astype(np.uint8)
    cuts = [slice(0, train), slice(train, train + val), slice(train + val, size)]
    splits = [Split(images[cut], labels[cut]) for cut in cuts]
    statistics = channel_statistics(splits[0].images)
    return Dataset("noise", ("a", "b", "c", "d"), *splits, *statistics, "memory", "none")


def prepare(folder, dataset, **flags):
    """(plan, first state, classifier) of a configuration."""
    config = make_config({"precision": "float32", "devices": 1} | flags)
    prepared = training.prepare(config, dataset)
    folder.mkdir(exist_ok=True)
    parts = (Checkpoints(folder / "checkpoints"), RunWriter(folder))
    return *training.make_plan(prepared, *parts), prepared.classifier


@pytest.mark.parametrize(
    "width, matrix_units, half", [(1, False, True), (0.25, False, False), (0.25, True, True)]
)
def test_bfloat16_is_chosen_where_it_is_faster(monkeypatch, width, matrix_units, half):
    monkeypatch.setattr("common.training.fast_bfloat16", lambda devices: True)
    monkeypatch.setattr("vision.classifier.has_matrix_units", lambda: matrix_units)
    config = make_config({"model": "cnn", "width": width, "devices": 1})
    classifier = make_classifier(config, ("a", "b"), np.zeros(3), np.ones(3))
    assert (classifier.precision == "bfloat16") == half


def take_steps(plan, state, steps):
    """Losses of the steps, the state after the first of them and after the last."""
    state = plan.devices.replicate(state)
    batches, losses, first = plan.epoch_batches(0), [], None
    for number in range(steps):
        rows = train_rows(batches[number % plan.steps_per_epoch]["index"], epoch=number)
        state, sums = plan.train_step(state, plan.data, plan.devices.shard(rows), plan.key)
        sums = jax.device_get(plan.devices.unreplicate(sums))
        losses.append(sums["loss"] / sums["weight"])
        if first is None:
            first = jax.device_get(plan.devices.unreplicate(state))
    return np.array(losses), first, jax.device_get(plan.devices.unreplicate(state))


def assert_close(tree, other, tolerance):
    """Leaves equal within `tolerance` of each leaf's largest value."""
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(other), strict=True
    ):
        worst = np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)
        assert worst <= tolerance, f"{jax.tree_util.keystr(path)}: {worst:.1e}"


# Sums over eight devices are rounded otherwise than over one. That difference, 1e-7, doubles
# with every step of a large learning rate, and a ReLU or maximum whose operands it reorders
# changes a gradient by 1e-3: flat or mirrored backgrounds, where many pixels are equal, do so
# at once. Both happen with any two machines as well. (In float64 the gradients of ResNet-18
# agree to 1e-14.) So the images have texture everywhere, also where they are cropped, and the
# learning rate is small: the narrow ResNet, whose 20 normalisations amplify most, needs 1e-5,
# which momentum makes 1e-4. (Its images are small to save time.) Momentum's array after the
# first step is the gradient.
@pytest.mark.parametrize(
    "model, learning_rate, conv, side", [("cnn", 1e-3, "auto", 32), ("resnet18", 1e-5, "xla", 16)]
)
def test_one_device_and_eight_give_the_same_losses(
    tmp_path, monkeypatch, model, learning_rate, conv, side
):
    dataset = make_dataset(side=side)
    flags = {
        "model": model, "conv": conv, "width": 0.125, "batch_size": 32, "dropout": 0.2,
        "augment": "flip+crop(fill=reflect)+mixup(1)", "optimizer": "momentum", "l2": 0.0,
        "schedule": "constant", "learning_rate": learning_rate, "ema": 0.9,
    }  # fmt: skip
    plan, state, _ = prepare(tmp_path / "one", dataset, **flags)
    state = jax.device_get(state)
    monkeypatch.setattr(training, "init_state", lambda *_: state)  # compiling it is slow
    plan_8, _, _ = prepare(tmp_path / "eight", dataset, **flags, devices=8)
    losses, first, last = take_steps(plan, state, 20)
    losses_8, first_8, last_8 = take_steps(plan_8, state, 20)
    np.testing.assert_allclose(losses, losses_8, rtol=0, atol=1e-5)
    assert_close(first.opt_state, first_8.opt_state, 1e-5)
    assert_close(first.batch_stats, first_8.batch_stats, 1e-5)
    assert_close(last.batch_stats, last_8.batch_stats, 1e-4)
    for a, b in zip(jax.tree.leaves(last.params), jax.tree.leaves(last_8.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    # Not trivially: the weights moved, and dropout and augmentation drew anew.
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, last.params)
    assert max(jax.tree.leaves(moved)) > learning_rate and len(set(losses)) == 20


def make_loss(dataset, smoothing=0.0, **flags):
    config = make_config(SMALL | flags)
    classifier = make_classifier(config, dataset.classes, dataset.mean, dataset.std)
    augment = make_augment(config.augment, len(dataset.classes))
    loss_fn = training.make_loss_fn(classifier, augment, smoothing)
    variables = jax.jit(classifier.model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3)))
    return classifier, jax.jit(loss_fn), variables


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_the_weighted_sum_of_cross_entropies(smoothing):
    dataset = make_dataset()
    classifier, loss_fn, variables = make_loss(dataset, smoothing)
    images, labels = (rows[:6] for rows in dataset.train)
    weight = np.array([1, 1, 0, 1, 1, 0.5], np.float32)
    batch = {"image": images, "label": labels, "weight": weight}
    loss, (_, sums) = loss_fn(variables["params"], {}, batch, jax.random.key(1))
    x = (images / 255 - dataset.mean) / dataset.std
    logits = jax.jit(classifier.model.apply)(variables, x.astype(np.float32))
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
    expected = -(weight[:, None] * target * log_p).sum()
    np.testing.assert_allclose([loss, sums["loss"]], expected, rtol=1e-5)
    assert sums["weight"] == 4.5
    np.testing.assert_allclose(sums["accuracy"], weight @ (logits.argmax(axis=1) == labels))


def test_padding_changes_neither_loss_nor_gradient():
    dataset = make_dataset()
    _, loss_fn, variables = make_loss(dataset, augment="flip")
    images, labels = (rows[:8] for rows in dataset.train)
    weight = np.array([1] * 5 + [0] * 3, np.float32)
    gradient = jax.jit(jax.grad(loss_fn, has_aux=True))

    def at(images):
        batch = {"image": images, "label": labels, "weight": weight}
        return gradient(variables["params"], {}, batch, jax.random.key(1))

    found, (_, sums) = at(images)
    other, (_, other_sums) = at(np.where(np.arange(8)[:, None, None, None] < 5, images, 255))
    assert sums == other_sums
    assert_close(found, other, 1e-6)


def test_one_step_moves_every_leaf_and_a_repeated_batch_is_learnt(tmp_path):
    flags = SMALL | {"batch_norm": True, "ema": 0.9, "learning_rate": 1e-2}
    plan, state, _ = prepare(tmp_path, make_dataset(train=32), **flags)
    before = jax.device_get(state)
    _, _, after = take_steps(plan, before, 1)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        assert (a != b).any(), jax.tree_util.keystr(path)
    losses, _, _ = take_steps(plan, before, 12)
    assert losses[-3:].mean() < 0.8 * losses[0]


def test_evaluation_scores_the_average_and_each_image_once(tmp_path):
    dataset = make_dataset(val=13)
    plan, state, classifier = prepare(tmp_path, dataset, **SMALL, ema=0.9)
    worse = jax.tree.map(lambda x: x * 0 + 1e3, state.params)
    found = plan.evaluate(state.replace(params=worse))
    x = (dataset.val.images / 255 - dataset.mean) / dataset.std
    logits = jax.jit(classifier.model.apply)(state.ema, x.astype(np.float32))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, dataset.val.labels)
    hits = logits.argmax(axis=1) == dataset.val.labels
    assert found == pytest.approx(
        {"val/loss": float(losses.mean()), "val/accuracy": float(hits.mean())}, rel=1e-5
    )


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("size", [0, 1, 7, 16, 19])
def test_logits_do_not_depend_on_the_evaluation_batch(monkeypatch, devices, size):
    monkeypatch.setattr("vision.classifier.EVAL_BATCH", 8)
    dataset = make_dataset()
    config = make_config(SMALL | {"devices": devices})
    classifier = make_classifier(config, dataset.classes, dataset.mean, dataset.std)
    # A stand-in as quick as it can be: the first value of an image, as a logit.
    first = {"apply": lambda self, variables, x, train: x[:, 0, 0, :], "dtype": np.float32}
    model = type("First", (), first)()
    scorer = Scorer(dataclasses.replace(classifier, model=model))
    split = Split(dataset.train.images[:size], dataset.train.labels[:size])
    expected = (split.images[:, 0, 0] / 255 - dataset.mean) / dataset.std
    if size:
        np.testing.assert_allclose(scorer.score_split({}, split), expected, atol=1e-5)


def test_a_whole_run_without_validation(tmp_path, monkeypatch, capsys, caplog):
    dataset = make_dataset(val=0)
    monkeypatch.setattr(training, "load_dataset", lambda config: dataset)
    monkeypatch.setattr(training.report, "draw", lambda *_: None)
    config = make_config(SMALL | {"val_fraction": 0.0, "augment": "flip", "epochs": 2})
    workdir = tmp_path / "run"
    workdir.mkdir()
    with jax.log_compiles():
        # --resume on an empty folder starts anew.
        summary = loop.train(
            training.begin(config, workdir, resume=True, command="python launch.py ...")
        )

    steps = [line for line in caplog.messages if "XLA compilation of jit(train_step)" in line]
    assert len(steps) == 1, "the step is compiled once"
    told = capsys.readouterr().out
    assert "resuming" not in told and "cnn_b, " in told and "96 train, 0 val, 16 test" in told
    assert summary == json.loads((workdir / "summary.json").read_text())
    needed = {
        "task", "model", "dataset", "seed", "epochs", "best_epoch", "test/accuracy", "test/loss",
        "test/ece", "test/per_class", "params", "images_per_second", "seconds", "command", "jax",
        "device",
    }  # fmt: skip
    assert needed <= set(summary) and not {"val/loss", "val/accuracy"} & set(summary)
    assert (summary["epochs"], summary["best_epoch"]) == (2, 2)
    assert summary["settings"] == dataclasses.asdict(config) and summary["data"]["fingerprint"]
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    files = {"config.json", "inputs.json", "metrics.jsonl", "summary.json", "command.txt"}
    folders = {"checkpoints", "tensorboard"}
    assert {path.name for path in workdir.iterdir()} == files | folders | {"test_counts.npz"}
    there, found, right = np.load(workdir / "test_counts.npz")["accuracy"].T
    assert there.tolist() == found.tolist() == [1] * 16
    assert right.mean() == summary["test/accuracy"]


@pytest.mark.parametrize("precision, expected", [("auto", "float32"), ("bfloat16", "bfloat16")])
def test_precision(precision, expected):
    config = make_config(SMALL | {"precision": precision})
    classifier = make_classifier(config, ("a", "b"), np.zeros(3), np.ones(3))
    assert classifier.precision == expected


def test_a_chunk_of_steps_is_the_steps(tmp_path):
    """What accelerators run, here on the CPU."""
    flags = SMALL | {"dropout": 0.2, "augment": "standard"}
    plan, state, _ = prepare(tmp_path / "run", make_dataset(), **flags)
    state = jax.device_get(state)
    losses, _, last = take_steps(plan, state, 3)
    rows = plan.devices.shard_steps(
        [train_rows(batch["index"], epoch=n) for n, batch in enumerate(plan.epoch_batches(0))]
    )
    placed = plan.devices.replicate(state)
    chunk, sums = plan.train_chunk(placed, plan.data, rows, plan.key)
    np.testing.assert_allclose(sums["loss"] / sums["weight"], losses, rtol=1e-6)
    assert_close(last, jax.device_get(chunk), 1e-5)  # of each leaf, sums in another order

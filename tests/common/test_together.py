"""Several runs as one program are the runs that they are one by one."""

import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest

from common import loop, together
from common.batching import epoch_batches
from common.errors import DivergedError, InputError, StoppedBySignal
from common.parallel import local_devices
from common.plan import Session
from common.stacked import StackedSteps
from common.training import TrainingConfig
from common.writer import RunWriter
from tests.toy import counting, make_plan

SEEDS = (1, 2, 3)
TIMING = {"examples_per_second"}


def make_session(folder, seed=1, finished=None, **changes):
    """A toy run with a seed, which notes in `finished` what it ended with."""
    order = {"epoch_batches": lambda epoch: epoch_batches(seed, epoch, 40, 8)}
    key = local_devices(changes.get("device_count", 1)).replicate(jax.random.key(seed))
    plan, state = make_plan(folder, key=key, **order | changes)

    def finish(best, progress):
        if finished is not None:
            assert [row["epoch"] for row in plan.writer.history] == [*range(1, progress.epoch + 1)]
            finished[folder.name] = (jax.device_get(best), progress)
        return {}

    return Session(plan, state, finish, "toy")


def alone(folder, seed, **changes):
    """(selected state, progress, history) of the run by itself."""
    session = make_session(folder, seed, **changes)
    best, progress = loop.run(session.state, session.plan)
    return jax.device_get(best), progress, session.plan.writer.history


def noted(thing, things):
    things.append(thing)
    return thing


def read_history(folder, epochs=3):
    return RunWriter(folder).read_rows(epochs)


def assert_alike(state, other):
    """Leaf by leaf, but for rounding."""
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def assert_rows_alike(rows, others):
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        for name in row.keys() - TIMING:
            assert other[name] == pytest.approx(row[name], rel=1e-5), (row["epoch"], name)


@pytest.mark.parametrize("chunk", [1, 2])
def test_three_runs_as_one_program_end_as_one_by_one(tmp_path, capsys, chunk):
    finished = {}
    sessions = [make_session(tmp_path / str(s), s, finished, chunk_steps=chunk) for s in SEEDS]
    compiled = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "StackedSteps", lambda plans: noted(StackedSteps(plans), compiled))
        together.run_together(sessions)
    assert [steps._one._cache_size() for steps in compiled] == [1]
    told = capsys.readouterr().out
    assert (
        "3 runs as one program: " in told and f"\n{tmp_path.name}/2: epoch 3/3  train/loss" in told
    )
    for seed in SEEDS:
        state, progress, history = alone(tmp_path / f"alone{seed}", seed)
        best, own = finished[str(seed)]
        assert_alike(state, best)
        assert (own.epoch, own.best_epoch, own.sums) == (3, progress.best_epoch, {})
        assert 0 < own.steps_timed < 15 and own.seconds > 0
        assert_rows_alike(history, read_history(tmp_path / str(seed)))


def test_stopped_runs_go_on_together_and_alone(tmp_path):
    """Stopped in an epoch, resumed as a group; stopped again, one of them finished by itself."""
    whole = [alone(tmp_path / f"alone{seed}", seed) for seed in SEEDS]

    def sessions(finished=None):
        return [make_session(tmp_path / str(seed), seed, finished) for seed in SEEDS]

    def stopped_after(steps):
        def make(self, *args):
            return send(self, *args)

        send = counting(StackedSteps.make, steps, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StackedSteps, "make", make)
            with pytest.raises(StoppedBySignal, match="stopped; 3 runs are saved") as stop:
                together.run_together(sessions())
        assert stop.value.signal_number == signal.SIGTERM

    stopped_after(3)
    newest = {s.plan.checkpoints.newest_step("latest") for s in sessions()}
    assert len(newest) == 1 and 3 <= newest.pop() <= 5
    stopped_after(4)
    loop.run(*(lambda s: (s.state, s.plan))(make_session(tmp_path / "2", 2)))
    finished = {}
    together.run_together(sessions(finished))
    for seed, (state, _, history) in zip(SEEDS, whole, strict=True):
        assert_alike(state, finished[str(seed)][0])
        assert_rows_alike(history, read_history(tmp_path / str(seed)))


def test_a_signal_during_validation_saves_all_and_they_go_on_together(tmp_path):
    def evaluate(state):
        os.kill(os.getpid(), signal.SIGINT)
        return {"val/score": 0.0}

    first = make_session(tmp_path / "1", 1)
    second = make_session(tmp_path / "2", 2, evaluate=evaluate)
    with pytest.raises(StoppedBySignal):
        together.run_together([first, second])
    assert [s.plan.checkpoints.newest_step("latest") for s in (first, second)] == [5, 5]
    finished = {}
    together.run_together([make_session(tmp_path / str(s), s, finished) for s in (1, 2)])
    for seed in (1, 2):
        best, progress = finished[str(seed)]
        assert progress.together == 2
        assert_alike(alone(tmp_path / f"alone{seed}", seed)[0], best)


def test_a_run_that_diverges_does_not_harm_the_others(tmp_path, capsys):
    finished = {}
    good = make_session(tmp_path / "1", 1, finished)
    data = {
        name: np.array(values) for name, values in make_session(tmp_path / "x").plan.data.items()
    }
    data["y"][7] = np.nan
    bad = make_session(tmp_path / "2", 2, finished, data=data)
    with pytest.raises(DivergedError, match="/2: the loss in epoch 1 is not a finite number"):
        together.run_together([good, bad])
    assert list(finished) == ["1"] and not bad.plan.checkpoints.exists()
    assert "/2: the loss in epoch 1 is not" in capsys.readouterr().err
    assert_alike(alone(tmp_path / "alone", 1)[0], finished["1"][0])


def test_a_run_that_stops_early_leaves_the_others(tmp_path):
    finished = {}
    stale = {"evaluate": lambda state: {"val/score": 0.0}, "patience": 1}
    sessions = [make_session(tmp_path / "1", 1, finished, **stale)]
    sessions += [make_session(tmp_path / str(seed), seed, finished) for seed in (2, 3)]
    together.run_together(sessions)
    assert [finished[name][1].epoch for name in "123"] == [2, 3, 3]
    assert_alike(alone(tmp_path / "alone", 3)[0], finished["3"][0])


def test_what_does_not_fit_is_trained_on_its_own(tmp_path, capsys):
    finished = {}
    first, second = (make_session(tmp_path / str(seed), seed, finished) for seed in (1, 2))
    other = dataclasses.replace(second, program="another")
    together.run_together([first, other])
    assert "/1 is trained on its own\n" in capsys.readouterr().out
    assert_alike(alone(tmp_path / "alone", 2)[0], finished["2"][0])


def test_on_several_devices_each_is_trained_on_its_own(tmp_path):
    finished = {}
    seeds = (1, 2)
    sessions = [make_session(tmp_path / str(s), s, finished, device_count=2) for s in seeds]
    together.run_together(sessions)
    for seed in seeds:
        assert_alike(alone(tmp_path / f"alone{seed}", seed)[0], finished[str(seed)][0])


@pytest.mark.parametrize(
    "content",
    [
        "[]", "{}", '{"runs": [{"settings": {}}]}', "{", '{"runs": []}',
        '{"runs": [{"settings": {"epochs": "three"}, "workdir": "w", "command": "c"}]}',
        '{"runs": [{"settings": {"epoch": 3}, "workdir": "w", "command": "c"}]}',
    ],
)  # fmt: skip
def test_a_file_that_no_study_wrote_is_refused(tmp_path, content):
    path = tmp_path / "runs.json"
    path.write_text(content)
    with pytest.raises(InputError, match="runs.json"):
        together.read_runs(path, TrainingConfig)


def test_flags_beside_the_file_are_refused():
    with pytest.raises(InputError, match="--epochs does not go with --together"):
        together.train_together({"together": "f", "task": "cifar"}, {"epochs": 3}, None, None, None)


TASKS = {
    "cifar": {
        "model": "cnn_b", "dataset": "digits", "width": 0.125, "epochs": 2, "batch_size": 50,
        "train_fraction": 0.15, "augment": "standard", "precision": "float32", "devices": 1,
        "optimizer": "adamw", "weight_decay": 0.05, "label_smoothing": 0.1, "dropout": 0.2,
        "learning_rate": 0.002, "schedule": "cosine",
    },
    "aspect": {
        "crf": True, "hidden_size": "6", "epochs": 2, "train_fraction": 0.15, "max_length": 16,
        "embeddings": "random", "embedding_size": 8, "recurrent_dropout": 0.2, "devices": 1,
        "weight_decay": 0.01, "word_shapes": True,
    },
}  # fmt: skip
CHANGES = {
    "cifar": {"learning_rate": 0.005, "weight_decay": 0.2, "label_smoothing": 0.3},
    "aspect": {"learning_rate": 0.003, "weight_decay": 0.1},
}


@pytest.mark.parametrize("task", TASKS)
def test_seeds_and_numbers_of_a_real_run_as_one_program(tmp_path, kept_programs, task, capsys):
    import text.commands
    import vision.commands

    commands = {"cifar": vision.commands, "aspect": text.commands}[task]
    base = TASKS[task] | {"seed": 0}
    arms = {"a": base, "b": base | {"seed": 1}, "c": base | {"seed": 1} | CHANGES[task]}
    runs = [
        {"settings": settings, "workdir": str(tmp_path / name), "command": f"command of {name}"}
        for name, settings in arms.items()
    ]
    (tmp_path / "runs.json").write_text(json.dumps({"runs": runs}))
    nothing = dict.fromkeys(("workdir", "resume", "run", "input", "format", "nbest", "top"))
    launcher = nothing | {"mode": "train", "task": task}
    commands.run(launcher | {"together": str(tmp_path / "runs.json")}, {}, "unused")
    assert "3 runs as one program: " in capsys.readouterr().out
    losses = set()
    for name, settings in arms.items():
        alone = tmp_path / f"alone-{name}"
        commands.run(launcher | {"together": None, "workdir": str(alone)}, dict(settings), "x")
        found, expected = (
            json.loads((folder / "summary.json").read_text()) for folder in (tmp_path / name, alone)
        )
        assert found["command"] == f"command of {name}"
        for key in ("train/loss", "val/loss"):
            assert found[key] == pytest.approx(expected[key], rel=2e-4), (name, key)
        losses.add(found["train/loss"])
        assert found["settings"] == expected["settings"]
        assert (found["together"], expected.get("together")) == (3, None)
    assert len(losses) == 3

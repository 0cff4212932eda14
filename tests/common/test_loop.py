"""Epochs, selection, early stop, checkpoints, stop and resume: a toy run, bit for bit."""

import os
import shutil
import signal
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import loop, signals
from common.errors import DivergedError, InputError, StoppedBySignal
from common.loop import fit
from common.plan import Progress
from common.signals import ECHO
from common.writer import RunWriter
from tests.toy import assert_same, compiled_step, counting, make_plan, patched

TIMING = {"seconds", "steps_timed", "examples_per_second"}


def begin(folder, resume, **changes):
    """The plan, and the state and progress of its start or of the latest checkpoint."""
    plan, state = make_plan(folder, **changes)
    if not resume:
        return plan, state, Progress()
    state, saved = plan.checkpoints.restore("latest", plan.devices.abstract(state))
    return plan, state, Progress(**saved)


def run(folder, resume=False, **changes):
    """`fit` as a task calls it: (last state, progress, plan)."""
    plan, state, progress = begin(folder, resume, **changes)
    state, progress = fit(plan.devices.replicate(state), plan, progress)
    return state, progress, plan


def untimed(row):
    return {name: value for name, value in row.items() if name not in TIMING}


def scores(values):
    """An evaluation that returns one value after another."""
    rest = iter(values)
    return lambda state: {"val/score": next(rest)}


def interrupted(folder, at, number, resume=False, **changes):
    """Start or resume a run whose step `at` a signal interrupts."""
    plan, state, progress = begin(folder, resume, **changes)
    send = counting(plan.train_step, at, lambda: os.kill(os.getpid(), number))
    with pytest.raises(StoppedBySignal, match="--resume continues") as stopped:
        fit(plan.devices.replicate(state), patched(plan, train_step=send), progress)
    assert stopped.value.signal_number == number
    return plan


def test_rows_and_progress_of_a_whole_run(tmp_path):
    state, progress, plan = run(tmp_path)
    assert int(state.step) == 15
    assert (progress.epoch, progress.sums, progress.steps_timed) == (3, {}, 14)
    rows = RunWriter(tmp_path)
    rows.open(3)
    rows.close()
    assert rows.history == plan.writer.history
    assert [row["epoch"] for row in rows.history] == [1, 2, 3]
    assert [row["step"] for row in rows.history] == [5, 10, 15]
    losses = [row["train/loss"] for row in rows.history]
    assert losses[0] > losses[1] and all(row["learning_rate"] == 0.05 for row in rows.history)
    assert all(row["examples_per_second"] > 0 for row in rows.history)


def test_the_step_is_compiled_once(tmp_path):
    compiled_step.cache_clear()
    assert run(tmp_path)[2].train_step._cache_size() == 1


def test_every_epoch_has_every_row_once_in_an_order_of_its_own(tmp_path):
    plan, state = make_plan(tmp_path)
    seen, epochs = [], []

    def watched(state, data, rows, key):
        seen.append(rows["index"])
        epochs.append(set(rows["epoch"]))
        return plan.train_step(state, data, rows, key)

    fit(plan.devices.replicate(state), patched(plan, train_step=watched), Progress())
    orders = np.reshape(seen, (3, 40))
    assert (np.sort(orders) == np.arange(40)).all()
    assert len({order.tobytes() for order in orders}) == 3
    assert epochs == [{epoch} for epoch in (0, 1, 2) for _ in range(5)]


@pytest.mark.parametrize("at, number", [(7, signal.SIGINT), (15, signal.SIGTERM)])
def test_a_stopped_run_continues_bit_for_bit(tmp_path, at, number):
    whole, progress, plan = run(tmp_path / "whole")
    interrupted(tmp_path / "cut", at, number)
    state, again, cut = run(tmp_path / "cut", resume=True)
    assert_same(whole, state)
    assert untimed(vars(progress)) == untimed(vars(again))
    assert list(map(untimed, plan.writer.history)) == list(map(untimed, cut.writer.history))


def test_stopping_saves_after_the_current_step(tmp_path):
    plan = interrupted(tmp_path, 7, signal.SIGTERM)
    assert plan.checkpoints.describe_newest().endswith("/latest/7")


def test_a_run_stopped_at_every_step_continues_bit_for_bit(tmp_path):
    whole = run(tmp_path / "whole")[0]
    for number in range(1, 16):
        plan, state = make_plan(tmp_path / "cut")
        progress = Progress()
        if number > 1:
            like = plan.devices.abstract(state)
            state, saved = plan.checkpoints.restore("latest", like)
            progress = Progress(**saved)
        send = counting(plan.train_step, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(StoppedBySignal):
            fit(plan.devices.replicate(state), patched(plan, train_step=send), progress)
    assert_same(whole, run(tmp_path / "cut", resume=True)[0])


def test_a_second_signal_stops_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "PATIENCE", 60)  # the thread would end the tests
    plan, state = make_plan(tmp_path)

    def insist():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2 * ECHO)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    impatient = patched(plan, train_step=counting(plan.train_step, 7, insist))
    with pytest.raises(StoppedBySignal, match="left at once; the last .*/latest/5; --resume goes"):
        fit(plan.devices.replicate(state), impatient, Progress())
    assert plan.checkpoints.describe_newest().endswith("/latest/5")


def test_a_signal_during_validation_saves_before_it_and_continues_bit_for_bit(tmp_path):
    whole, progress, plan = run(tmp_path / "whole")
    plan_2, state = make_plan(tmp_path / "cut")

    def evaluate(state):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the validation went on")

    with pytest.raises(StoppedBySignal, match="after 0 of 3 epochs and a part; saved .*/latest/5"):
        fit(plan_2.devices.replicate(state), replace(plan_2, evaluate=evaluate), Progress())
    state, again, cut = run(tmp_path / "cut", resume=True)
    assert_same(whole, state)
    assert untimed(vars(progress)) == untimed(vars(again))
    assert list(map(untimed, plan.writer.history)) == list(map(untimed, cut.writer.history))


def test_checkpoints_between_epochs_when_time_has_passed(tmp_path):
    class Killed(Exception):
        pass

    def kill():
        raise Killed

    plan, state = make_plan(tmp_path / "cut", checkpoint_seconds=0.0)
    killed = patched(plan, train_step=counting(plan.train_step, 9, kill))
    with pytest.raises(Killed):
        fit(plan.devices.replicate(state), killed, Progress())
    assert plan.checkpoints.describe_newest().endswith("/latest/8")
    assert_same(run(tmp_path / "whole")[0], run(tmp_path / "cut", resume=True)[0])


def test_the_best_epoch_is_selected_and_the_first_of_equals(tmp_path):
    _, progress, plan = run(tmp_path, evaluate=scores([1.0, 3.0, 3.0, 2.0]), epochs=4)
    assert (progress.best_epoch, progress.best_score, progress.epoch) == (2, 3.0, 4)
    like = plan.devices.abstract(make_plan(tmp_path)[1])
    best, saved = plan.checkpoints.restore("best", like)
    assert int(best.step) == 10 and saved["best_epoch"] == saved["epoch"] == 2


def test_without_validation_the_last_epoch_is_selected(tmp_path):
    state, progress, plan = run(tmp_path, evaluate=lambda state: {}, select=None)
    assert progress.best_epoch == 3
    best, _ = plan.checkpoints.restore("best", plan.devices.abstract(make_plan(tmp_path)[1]))
    assert_same(state, best)


def test_patience_stops_early_also_after_a_resume(tmp_path):
    values = [1.0, 4.0, 2.0, 3.0, 9.0]
    _, progress, _ = run(tmp_path, evaluate=scores(values), epochs=5, patience=2)
    assert (progress.epoch, progress.best_epoch) == (4, 2)
    _, progress, plan = run(tmp_path, resume=True, evaluate=scores([]), epochs=5, patience=2)
    assert (progress.epoch, len(plan.writer.history)) == (4, 4)


def test_a_loss_that_is_no_number_names_its_step_and_the_last_good_checkpoint(tmp_path):
    plan, state = make_plan(tmp_path)
    calls = 0

    def poisoned(*args):
        nonlocal calls
        calls += 1
        state, sums = plan.train_step(*args)
        return state, sums | {"loss": sums["loss"] * (jnp.nan if calls == 8 else 1.0)}

    message = r"the loss of step 8 is not a finite number; .* is .*/latest/5; try a lower --learn"
    with pytest.raises(DivergedError, match=message):
        fit(plan.devices.replicate(state), patched(plan, train_step=poisoned), Progress())


def test_weights_that_are_no_number_are_never_saved(tmp_path):
    plan, state = make_plan(tmp_path, checkpoint_seconds=0.0)

    def poisoned(*args):
        state, sums = plan.train_step(*args)
        bad = jax.tree.map(lambda x: x * jnp.nan, state.params)
        return state.replace(params=bad), sums

    with pytest.raises(DivergedError, match="a parameter after step 1 .* checkpoint is none"):
        fit(plan.devices.replicate(state), patched(plan, train_step=poisoned), Progress())
    assert not plan.checkpoints.exists()


@pytest.mark.parametrize("epochs, refused", [(1, False), (2, True)])
def test_a_run_that_has_lost_its_checkpoints_is_not_begun_anew(tmp_path, epochs, refused):
    """After one epoch it may have been killed before its first checkpoint."""
    run(tmp_path, epochs=epochs)
    for folder in list((tmp_path / "checkpoints").glob("*/*")):
        folder.rename(f"{folder}.damaged")
    plan, state = make_plan(tmp_path, epochs=2)
    if refused:
        with pytest.raises(InputError, match="has 2 finished epochs but no checkpoint any more"):
            loop.run(state, plan)
    else:
        assert loop.run(state, plan)[1].epoch == 2


def test_compiling_is_told_before_the_first_step(tmp_path, capsys):
    told = []
    plan, state, progress = begin(tmp_path, resume=False)
    step = counting(plan.train_step, 1, lambda: told.append(capsys.readouterr().out))
    fit(plan.devices.replicate(state), patched(plan, train_step=step), progress)
    assert told[0].endswith("epoch 1/3: compiling the training step\n")
    assert "compiling" not in capsys.readouterr().out


def test_lost_rows_are_told(tmp_path, capsys):
    run(tmp_path, epochs=2)
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text(rows[1])
    plan, state = make_plan(tmp_path, epochs=3)
    loop.run(state, plan)
    assert "has rows of 1 of the 2 finished epochs" in capsys.readouterr().err
    assert [row["epoch"] for row in plan.writer.history] == [2, 3]


def test_a_run_whose_epochs_have_other_steps_is_refused(tmp_path):
    run(tmp_path, epochs=1)
    plan, state = make_plan(tmp_path, epochs=2)
    with pytest.raises(InputError, match="has 1 finished epochs at step 5, which are not of 3 st"):
        loop.run(state, replace(plan, steps_per_epoch=3))


def test_eight_devices_run_the_same_loop(tmp_path):
    interrupted(tmp_path / "many", 7, signal.SIGTERM, device_count=8)
    many = run(tmp_path / "many", resume=True, device_count=8)[2]
    one = run(tmp_path / "one")[2]
    for a, b in zip(many.writer.history, one.writer.history, strict=True):
        assert untimed(a) == pytest.approx(untimed(b), rel=1e-5)


def test_a_run_may_move_from_eight_devices_to_one(tmp_path):
    interrupted(tmp_path / "many", 7, signal.SIGTERM, device_count=8)
    state = run(tmp_path / "many", resume=True)[0]
    whole = run(tmp_path / "one")[0]
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("chunk", [2, 5])
def test_chunks_of_steps_are_the_same_run(tmp_path, count, chunk):
    whole, _, plan = run(tmp_path / "steps", device_count=count)
    state, progress, chunks = run(tmp_path / "chunks", device_count=count, chunk_steps=chunk)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    for a, b in zip(plan.writer.history, chunks.writer.history, strict=True):
        assert untimed(a) == pytest.approx(untimed(b), rel=1e-6)
    timed = {2: 2 + 5 + 5, 5: 10}[chunk]  # all but the first chunk and the first single step
    assert progress.steps_timed == timed


def test_a_run_stopped_in_a_chunk_saves_after_it_and_continues(tmp_path):
    whole = run(tmp_path / "whole", chunk_steps=2)[0]
    plan, state = make_plan(tmp_path / "cut", chunk_steps=2, checkpoint_seconds=0.0)
    send = counting(plan.train_chunk, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StoppedBySignal):
        fit(plan.devices.replicate(state), patched(plan, train_chunk=send), Progress())
    assert plan.checkpoints.describe_newest().endswith("/latest/9")
    # The chunks of a resumed epoch begin where it was stopped.
    interrupted(tmp_path / "cut", 2, signal.SIGTERM, resume=True)
    assert_same(whole, run(tmp_path / "cut", resume=True, chunk_steps=2)[0])


def test_a_loss_that_is_no_number_in_a_chunk_names_its_step(tmp_path):
    plan, state = make_plan(tmp_path, chunk_steps=2)

    def poisoned(*args):
        state, sums = plan.train_chunk(*args)
        return state, sums | {"loss": sums["loss"].at[1].set(jnp.nan)}

    with pytest.raises(DivergedError, match="the loss of step 2 is not a finite number"):
        fit(plan.devices.replicate(state), patched(plan, train_chunk=poisoned), Progress())


def finish(folder, epochs):
    """A whole run of a few epochs by `loop.run`."""
    plan, state = make_plan(folder, epochs=epochs)
    return loop.run(state, plan)


def test_a_run_goes_on_from_its_latest_checkpoint(tmp_path, capsys):
    best, progress = finish(tmp_path / "whole", 3)
    finish(tmp_path / "cut", 2)
    best_2, progress_2 = finish(tmp_path / "cut", 3)
    assert f"resuming {tmp_path / 'cut'} after step 10 of 15" in capsys.readouterr().out
    assert_same(best, best_2)
    assert progress.best_epoch == progress_2.best_epoch


def test_a_run_that_has_lost_its_latest_checkpoints_goes_on_from_its_best(tmp_path, capsys):
    best, progress = finish(tmp_path / "whole", 3)
    _, selected = finish(tmp_path / "cut", 2)
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "latest")
    best_2, progress_2 = finish(tmp_path / "cut", 3)
    steps = 5 * selected.best_epoch
    assert f"after step {steps} of 15" in capsys.readouterr().out
    assert_same(best, best_2)
    assert progress.best_epoch == progress_2.best_epoch


def lose_best(folder):
    """Delete the best checkpoint, that of the first epoch, and the latest of that step."""
    shutil.rmtree(folder / "checkpoints" / "best")
    shutil.rmtree(folder / "checkpoints" / "latest" / "5")


def test_a_run_that_has_lost_its_best_checkpoint_selects_again(tmp_path, capsys):
    finish(tmp_path, 2)
    lose_best(tmp_path)
    with pytest.raises(InputError, match="has lost its best checkpoint, that of epoch 1"):
        finish(tmp_path, 2)
    _, progress = finish(tmp_path, 4)
    assert progress.best_epoch in (3, 4)
    assert "the best checkpoint is lost" in capsys.readouterr().err


@pytest.mark.parametrize("lose", ["delete", "damage", "older"])
def test_a_best_checkpoint_that_is_lost_is_found_among_the_latest(tmp_path, capsys, lose):
    best, _ = finish(tmp_path, 2)
    folder = tmp_path / "checkpoints" / "best"
    if lose == "damage":
        damage(folder)
    elif lose == "delete":
        shutil.rmtree(folder)
    else:
        (folder / "5").rename(folder / "4")
    again, progress = finish(tmp_path, 2)
    assert_same(best, again)
    assert progress.best_epoch == 1 and "lost" not in capsys.readouterr().err


def test_a_run_killed_between_its_latest_and_its_best_checkpoint_goes_on(tmp_path):
    best, progress = finish(tmp_path / "whole", 3)
    finish(tmp_path / "cut", 1)  # the first epoch is the best so far
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "best")
    best_2, progress_2 = finish(tmp_path / "cut", 3)
    assert_same(best, best_2)
    assert progress.best_epoch == progress_2.best_epoch


def damage(folder):
    """Turn every file below around."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[::-1])


def test_a_run_whose_latest_checkpoint_is_damaged_has_its_best_one(tmp_path, capsys):
    """Where both are of the same step, nothing is trained again."""
    plan, state = make_plan(tmp_path, epochs=2, select=None)
    best, _ = loop.run(state, plan)
    damage(tmp_path / "checkpoints" / "latest" / "10")
    for said in ("latest/10 is damaged; best/10 is whole", ""):  # the second time it is aside
        plan, state = make_plan(tmp_path, epochs=2, select=None)
        assert_same(best, loop.run(state, plan)[0])
        told = capsys.readouterr()
        assert "after step 10 of 10" in told.out and said in told.err
    assert told.err == ""


def test_a_run_whose_best_checkpoint_is_damaged_selects_again(tmp_path, capsys):
    finish(tmp_path, 2)
    damage(tmp_path / "checkpoints" / "best")
    damage(tmp_path / "checkpoints" / "latest" / "5")
    _, progress = finish(tmp_path, 4)
    assert progress.best_epoch in (3, 4)
    told = capsys.readouterr().err
    assert "/best/5 is damaged" in told and "the best checkpoint is lost" in told
    assert (tmp_path / "checkpoints" / "best" / "5.damaged").is_dir(), "nothing is deleted"

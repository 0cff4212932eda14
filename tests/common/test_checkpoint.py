"""Checkpoints: whole states back bit for bit, the newest that can be read, clear errors."""

import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from common.checkpoint import Checkpoints
from common.errors import InputError
from common.parallel import local_devices
from common.state import create_state
from tests.toy import assert_same, make_params, make_state

PROGRESS = {"epoch": 2, "sums": {"loss": 0.1 + 0.2}, "best_score": None}


def make_states(count=3, ema=True):
    """States of steps 1 to `count`, all leaves different."""
    state = make_state(optax.adam(0.1), ema=ema)
    return [
        jax.tree.map(lambda x, n=n: x + jnp.asarray(n * (x.ndim + 1), x.dtype), state)
        for n in range(1, count + 1)
    ]


def abstract(state):
    return local_devices(1).abstract(state)


def damage(folder):
    """Cut the largest file of a checkpoint in half."""
    largest = max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    with largest.open("r+b") as file:
        file.truncate(largest.stat().st_size // 2)


@pytest.mark.parametrize("ema", [False, True])
def test_everything_comes_back_bit_for_bit(tmp_path, ema):
    [state] = make_states(1, ema)
    Checkpoints(tmp_path).save("best", state, PROGRESS)
    found, progress = Checkpoints(tmp_path).restore("best", abstract(state))
    assert_same(state, found)
    assert progress == PROGRESS
    assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(found))


def test_half_precision_and_an_empty_part_come_back(tmp_path):
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), make_params())
    state = create_state({"params": params}, optax.sgd(0.1))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("latest", state, {})
    found, progress = checkpoints.restore("latest", abstract(state))
    assert found.batch_stats == progress == {} and found.ema is None
    assert_same(state, found)


def test_two_latest_are_kept_and_one_best(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert not checkpoints.exists() and checkpoints.describe_newest() == "none"
    for state in make_states(4):
        checkpoints.save("latest", state, PROGRESS)
        checkpoints.save("best", state, PROGRESS)
    assert sorted(p.name for p in (tmp_path / "latest").iterdir()) == ["3", "4"]
    assert [p.name for p in (tmp_path / "best").iterdir()] == ["4"]
    assert checkpoints.describe_newest() == str(tmp_path / "latest" / "4")


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    states = make_states(2)
    for state in states:
        Checkpoints(tmp_path).save("latest", state, PROGRESS | {"epoch": int(state.step)})
    damage(tmp_path / "latest" / "2")
    found, progress = Checkpoints(tmp_path).restore("latest", abstract(states[0]))
    assert_same(states[0], found)
    assert progress["epoch"] == 1
    told = capsys.readouterr().err
    assert f"{tmp_path / 'latest' / '2'} is damaged; latest/1 is whole" in told


def test_a_damaged_checkpoint_is_written_anew(tmp_path):
    """A run that fell back comes to the damaged step again, and must not keep it."""
    states = make_states(2)
    for state in states:
        Checkpoints(tmp_path).save("latest", state, PROGRESS)
    damage(tmp_path / "latest" / "2")
    checkpoints = Checkpoints(tmp_path)
    checkpoints.restore("latest", abstract(states[0]))
    assert (tmp_path / "latest" / "2").exists(), "only a run that goes on repairs its folder"
    checkpoints.resume(abstract(states[0]))
    checkpoints.save("latest", states[1], PROGRESS)
    assert_same(states[1], Checkpoints(tmp_path).restore("latest", abstract(states[1]))[0])


def test_all_damaged_are_left_as_they_are(tmp_path):
    states = make_states(2)
    for name in ("latest", "best"):
        Checkpoints(tmp_path).save(name, states[1], PROGRESS)
        damage(tmp_path / name / "2")
    with pytest.raises(InputError, match="no checkpoint in .*/latest or .*/best can be read as"):
        Checkpoints(tmp_path).resume(abstract(states[0]))
    assert [p.name for p in tmp_path.glob("*/*")] == ["2", "2"]


def test_memory_that_runs_out_is_no_damage(tmp_path, monkeypatch):
    [state] = make_states(1)
    Checkpoints(tmp_path).save("latest", state, PROGRESS)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(Checkpoints, "_read", fail)
    with pytest.raises(MemoryError):
        Checkpoints(tmp_path).resume(abstract(state))


@pytest.mark.parametrize("part", ["state", "progress", "checksum"])
def test_a_changed_value_is_noticed_where_the_files_are_sound(tmp_path, part):
    """As a bit flipped on the disk: what orbax reads without complaint is another state."""
    states = make_states(2)
    for state in states:
        Checkpoints(tmp_path).save("latest", state, PROGRESS | {"epoch": int(state.step)})
    other = {
        "state": ocp.args.StandardSave(states[1].replace(step=states[1].step + 1)),
        "progress": ocp.args.JsonSave(PROGRESS | {"epoch": 3}),
        "checksum": ocp.args.JsonSave({"sha256": "0" * 64}),
    }
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(tmp_path / "other", ocp.args.Composite(**{part: other[part]}))
    shutil.rmtree(tmp_path / "latest" / "2" / part)
    (tmp_path / "other" / part).rename(tmp_path / "latest" / "2" / part)
    found, progress = Checkpoints(tmp_path).restore("latest", abstract(states[0]))
    assert_same(states[0], found)
    assert progress["epoch"] == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the same
def test_every_flipped_bit_is_noticed_or_harmless(tmp_path, capsys):
    states = make_states(2)
    rng = np.random.default_rng(0)
    for state in states:
        Checkpoints(tmp_path / "whole").save("latest", state, PROGRESS)
    told = 0
    for number in range(20):
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", copy)
        files = [f for f in sorted((copy / "latest" / "2").rglob("*")) if f.is_file()]
        sizes = np.array([f.stat().st_size for f in files])
        file = files[rng.choice(len(files), p=sizes / sizes.sum())]
        content = bytearray(file.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(content)
        found, progress = Checkpoints(copy).restore("latest", abstract(states[0]))
        damaged = "2 is damaged; latest/1 is whole" in capsys.readouterr().err
        assert_same(states[0 if damaged else 1], found)
        assert progress == PROGRESS
        told += damaged
    gc.collect()
    assert told >= 5


def test_a_checkpoint_of_a_version_without_checksums_is_read(tmp_path):
    [state] = make_states(1)
    Checkpoints(tmp_path).save("latest", state, PROGRESS)
    shutil.rmtree(tmp_path / "latest" / "1" / "checksum")
    assert_same(state, Checkpoints(tmp_path).restore("latest", abstract(state))[0])


def test_a_step_with_other_progress_is_written_anew(tmp_path):
    """As after a stop before the validation, which a resumed run does."""
    [state] = make_states(1)
    for epoch in (1, 2):
        Checkpoints(tmp_path).save("latest", state, PROGRESS | {"epoch": epoch})
    assert Checkpoints(tmp_path).restore("latest", abstract(state))[1]["epoch"] == 2
    assert [path.name for path in (tmp_path / "latest").iterdir()] == ["1"]


@pytest.mark.parametrize("end", ["fails", "is killed"])
def test_a_step_that_is_not_written_anew_to_its_end_is_kept(tmp_path, monkeypatch, end):
    [state] = make_states(1)
    Checkpoints(tmp_path).save("latest", state, PROGRESS)
    checkpoints = Checkpoints(tmp_path)
    error = OSError if end == "fails" else KeyboardInterrupt

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch, pytest.raises((InputError, KeyboardInterrupt)):
        patch.setattr(ocp.CheckpointManager, "save", fail)
        checkpoints.save("latest", state, PROGRESS | {"epoch": 3})
    assert checkpoints.describe_newest() == str(tmp_path / "latest" / "1")
    assert_same(state, checkpoints.resume(abstract(state))[0])


@pytest.mark.parametrize("written", [False, True])
def test_a_run_that_was_killed_in_a_replacement_goes_on_from_one_of_both(tmp_path, written):
    [state] = make_states(1)
    for epoch in (1, 2) if written else (1,):
        Checkpoints(tmp_path).save("latest", state, PROGRESS | {"epoch": epoch})
        if epoch == 1:
            shutil.copytree(tmp_path / "latest" / "1", tmp_path / "latest" / "1.old")
    if not written:
        shutil.rmtree(tmp_path / "latest" / "1")
    (tmp_path / "latest" / "1.old").rename(tmp_path / "latest" / "1.kept")
    (tmp_path / "latest" / "mine.kept").mkdir()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.recover(abstract(state))
    assert checkpoints.resume(abstract(state))[1]["epoch"] == (2 if written else 1)
    assert sorted(path.name for path in (tmp_path / "latest").iterdir()) == ["1", "mine.kept"]


def test_what_was_replaced_comes_back_where_its_successor_is_damaged(tmp_path):
    [state] = make_states(1)
    Checkpoints(tmp_path).save("latest", state, PROGRESS)
    shutil.copytree(tmp_path / "latest" / "1", tmp_path / "latest" / "1.kept")
    damage(tmp_path / "latest" / "1")
    checkpoints = Checkpoints(tmp_path)
    checkpoints.recover(abstract(state))
    assert_same(state, checkpoints.resume(abstract(state))[0])
    assert sorted(path.name for path in (tmp_path / "latest").iterdir()) == ["1", "1.damaged"]


def test_a_renamed_folder_is_set_aside_and_no_other_damaged_one_is_lost(tmp_path):
    states = make_states(2)
    for state in states:
        Checkpoints(tmp_path).save("latest", state, PROGRESS)
    (tmp_path / "latest" / "2").rename(tmp_path / "latest" / "9")
    for name in ("9.damaged", "010", "\N{SUPERSCRIPT TWO}"):
        (tmp_path / "latest" / name).mkdir()
    checkpoints = Checkpoints(tmp_path)
    assert_same(states[0], checkpoints.resume(abstract(states[0]))[0])
    assert (tmp_path / "latest" / "9.damaged2" / "state").exists()
    checkpoints.save("latest", states[1], PROGRESS)


def test_half_written_checkpoints_do_not_count(tmp_path):
    states = make_states(2)
    Checkpoints(tmp_path).save("latest", states[0], PROGRESS)
    unfinished = tmp_path / "latest" / "2.orbax-checkpoint-tmp-17"
    unfinished.mkdir()
    (unfinished / "state").write_text("x")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.describe_newest().endswith("/latest/1")
    assert_same(states[0], checkpoints.restore("latest", abstract(states[0]))[0])
    checkpoints.save("latest", states[1], PROGRESS)
    assert checkpoints.describe_newest().endswith("/latest/2")


def test_nothing_to_restore(tmp_path):
    [state] = make_states(1)
    Checkpoints(tmp_path / "other").save("latest", state, PROGRESS)
    with pytest.raises(
        InputError, match="best holds no checkpoint: finish the run by --resume --workdir="
    ):
        Checkpoints(tmp_path / "other").restore("best", abstract(state))
    with pytest.raises(InputError, match="best holds no checkpoint: train the run first"):
        Checkpoints(tmp_path).restore("best", abstract(state))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax
@pytest.mark.parametrize("change", ["shape", "names"])
def test_another_model_is_refused_and_its_weights_kept(tmp_path, change):
    [state] = make_states(1)
    Checkpoints(tmp_path).save("best", state, PROGRESS)
    params = {
        "shape": {"dense": make_params()["dense"] | {"kernel": jnp.zeros(5)}},
        "names": {"output": make_params()["dense"]},
    }[change]
    with pytest.raises(
        InputError,
        match="no checkpoint in .*best can be read as this run's model: either it is damaged or",
    ):
        Checkpoints(tmp_path).restore("best", abstract(state.replace(params=params)))
    gc.collect()
    assert_same(state, Checkpoints(tmp_path).restore("best", abstract(state))[0])

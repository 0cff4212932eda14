"""Full and read-only disks, a full /dev/shm: for real, by mounts that only the run sees."""

import json
import os
from pathlib import Path

import pytest

from common import run_folder
from common.errors import InputError
from common.writer import RunWriter
from tests.faults.surroundings import TOY_RUN, needs_mounts, run_mounted

# On Linux whatever is written there meets a full disk.
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def read_rows(folder):
    return [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]


@needs_mounts
def test_a_checkpoint_on_a_full_disk_stops_the_run_and_space_lets_it_go_on(tmp_path):
    (tmp_path / "disk").mkdir()
    result = run_mounted(
        f"cd {tmp_path}; mount -t tmpfs -o size=160k none disk; cd {os.getcwd()};"
        f"{TOY_RUN} {tmp_path}/disk/run; echo status $?;"
        f"mount -o remount,size=10m {tmp_path}/disk;"
        f"{TOY_RUN} {tmp_path}/disk/run; echo status $?;"
        f"cp -r {tmp_path}/disk/run {tmp_path}/kept"
    )
    told = result.stdout.splitlines()
    assert "Traceback" not in result.stdout, result.stdout
    latest = tmp_path / "disk" / "run" / "checkpoints" / "latest" / "5"
    at = told.index("status 2")
    assert told[at - 1].startswith(f"launch.py: {tmp_path}/disk/run/checkpoints/")
    assert told[at - 1].endswith(
        "cannot be written (the disk is full): free some space, then --resume; the last good "
        f"checkpoint is {latest}"
    )
    assert told[at + 1] == f"resuming {tmp_path}/disk/run after step 5 of 15"
    assert told[-1] == "status 0"
    rows = read_rows(tmp_path / "kept")
    assert [row["epoch"] for row in rows] == [1, 2, 3]


@needs_mounts
def test_training_needs_no_shared_memory(tmp_path):
    result = run_mounted(
        f"mount -t tmpfs -o size=4k,nr_inodes=1 none /dev/shm; touch /dev/shm/x;"
        f"{TOY_RUN} {tmp_path}/run; echo status $?"
    )
    assert "touch: " in result.stdout, "it was to be full"
    assert result.stdout.splitlines()[-1] == "status 0", result.stdout


@needs_mounts
def test_a_read_only_folder_is_refused_in_one_line(tmp_path):
    (tmp_path / "disk" / "old").mkdir(parents=True)
    result = run_mounted(
        f"mount --bind {tmp_path}/disk {tmp_path}/disk;"
        f"mount -o remount,bind,ro {tmp_path}/disk;"
        f"for run in old new; do {TOY_RUN} {tmp_path}/disk/$run; echo status $?; done"
    )
    expected = []
    for run in ("old", "new"):
        refused = f"--workdir={tmp_path}/disk/{run} cannot be written: Read-only file system"
        expected += [f"launch.py: {refused}", "status 2"]
    assert result.stdout.splitlines() == expected


ROWS = [{"epoch": n, "step": 5 * n, "train/loss": 1 / n} for n in (1, 2, 3)]


@needs_full
def test_metrics_on_a_full_disk_are_written_when_there_is_space(tmp_path, capsys):
    writer = RunWriter(tmp_path)
    writer.open(0)
    path = tmp_path / "metrics.jsonl"
    writer.write(ROWS[0])
    path.unlink()
    path.symlink_to(FULL)
    (tmp_path / "metrics.tmp").symlink_to(FULL)
    writer.write(ROWS[1])
    told = capsys.readouterr().err
    assert told == (
        f"{path} cannot be written (No space left on device): free some space; the run goes on "
        "and tries again after the next epoch\n"
    )
    (tmp_path / "metrics.tmp").unlink()
    writer.write(ROWS[2])
    writer.close()
    assert read_rows(tmp_path) == ROWS


@needs_full
def test_rows_of_the_last_epoch_are_written_at_the_end(tmp_path):
    writer = RunWriter(tmp_path)
    writer.open(0)
    path = tmp_path / "metrics.jsonl"
    path.unlink()
    path.symlink_to(FULL)
    writer.write(ROWS[0])
    writer.close()
    assert read_rows(tmp_path) == ROWS[:1]


@needs_full
def test_tensorboard_on_a_full_disk_does_not_stop_the_run(tmp_path, capsys):
    writer = RunWriter(tmp_path)
    writer.open(0)
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.unlink()
    file.symlink_to(FULL)
    for row in ROWS:
        writer.write(row)
    writer.close()
    assert capsys.readouterr().err == f"{file} ends here: No space left on device\n"
    assert read_rows(tmp_path) == ROWS


@needs_full
@pytest.mark.parametrize("name", ["summary.tmp", "test_counts.npz"])
def test_a_summary_on_a_full_disk_says_that_nothing_is_lost(tmp_path, name):
    (tmp_path / name).symlink_to(FULL)
    with pytest.raises(InputError, match=r"summary.json cannot be written \(No space left on dev"):
        run_folder.write_summary(tmp_path, {"test/accuracy": 0.5}, {})


@needs_full
def test_pictures_on_a_full_disk_are_missing_and_no_more(tmp_path, capsys):
    run_folder.try_to_draw(tmp_path, lambda: FULL.write_text("a picture"))
    told = capsys.readouterr().err
    assert told.startswith(f"pictures are missing in {tmp_path} (No space left on device): free")

"""metrics.jsonl, TensorBoard events and progress, as a person and a program read them."""

import io
import json
import time

import pytest
from tensorboardX.proto import event_pb2

from common import writer
from common.writer import EpochBar, RunWriter

ROWS = [
    {"epoch": n, "step": 5 * n, "train/loss": 2.0 / n, "val/accuracy": n / 7} for n in (1, 2, 3)
]


def write(folder, rows, finished=0):
    run = RunWriter(folder)
    run.open(finished)
    for row in rows:
        run.write(row)
    run.close()
    return run


def read(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def read_events(folder):
    """{(name, step): value} in the event files: records of length, checksum, data, checksum."""
    found = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        file = io.BytesIO(path.read_bytes())
        while header := file.read(12):
            event = event_pb2.Event.FromString(file.read(int.from_bytes(header[:8], "little")))
            file.read(4)
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    return found


def test_a_row_is_on_the_disk_when_written(tmp_path):
    run = RunWriter(tmp_path)
    run.open(0)
    for n, row in enumerate(ROWS, 1):
        run.write(row)
        assert read(tmp_path) == run.history == ROWS[:n]
    run.close()


def test_tensorboard_has_every_number(tmp_path):
    write(tmp_path, ROWS)
    expected = {
        (name, row["step"]): pytest.approx(row[name])
        for row in ROWS
        for name in ("train/loss", "val/accuracy")
    }
    assert read_events(tmp_path) == expected


def test_rows_after_the_checkpoint_are_written_again(tmp_path):
    write(tmp_path, ROWS)
    again = write(tmp_path, [ROWS[2]], finished=2)
    assert read(tmp_path) == again.history == ROWS


def test_a_line_cut_by_a_kill_is_dropped(tmp_path):
    write(tmp_path, ROWS[:2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "st')
    write(tmp_path, [ROWS[2]], finished=2)
    assert read(tmp_path) == ROWS


@pytest.mark.parametrize(
    "line",
    [
        '{"epoch": 1, "step": 5, "val/loss": "abc"}',
        '{"epoch": 1, "step": 5, "val/loss": [1]}',
        '{"epoch": 1, "step": 5, "val/loss": null}',
        '{"epoch": 1, "step": 1' + 30 * "0" + "}",
        '{"epoch": 0, "step": 5}',
        "[" * 200_000,
    ],
)
def test_a_row_that_somebody_changed_is_dropped(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(line + "\n" + json.dumps(ROWS[1]) + "\n")
    assert write(tmp_path, [ROWS[2]], finished=2).history == ROWS[1:]


def test_what_no_stream_takes_stops_nothing(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        monkeypatch.setattr(writer, "lost_lines", [])
        writer.say("a line")
        assert writer.lost_lines == ["No space left on device: a line"]
        monkeypatch.undo()
        with pytest.raises(OSError):
            full.flush()
        with pytest.raises(OSError):
            full.close()


def test_a_new_run_starts_empty(tmp_path):
    write(tmp_path, ROWS)
    assert write(tmp_path, []).history == read(tmp_path) == []


def test_plain_lines_where_there_is_no_terminal(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(writer.time, "monotonic", lambda: now)
    with EpochBar("epoch 2/9", total=10, done=4, unit="images", scale=8) as bar:
        for n, now in enumerate((40.0, 60.0, 100.0), 1):  # noqa: B007
            # The first two compile: how fast steps are is not known.
            bar.step({"loss": 1 / n}, 0.0 if n < 3 else 0.25)
    told = "epoch 2/9 step 7/10 loss 0.3333, 2 images/s, 12 s left"
    assert capsys.readouterr().out.splitlines() == [told]


def test_compiling_is_told_once_an_epoch_where_there_is_no_terminal(capsys):
    with EpochBar("epoch 2/9", total=10, done=4, unit="images", scale=8) as bar:
        bar.compiles()
        bar.step({"loss": 1.0}, 0.0)
        bar.compiles()
    assert capsys.readouterr().out == "epoch 2/9: compiling the training step\n"


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with EpochBar("epoch 2/9", total=10, done=4, unit="images", scale=8) as bar:
        bar.compiles()
        for _ in range(6):
            bar.step({"loss": 0.25, "accuracy": 0.5}, 3.0)
            time.sleep(0.03)  # it is drawn ten times a second at most
    shown = capsys.readouterr().err
    assert "epoch 2/9" in shown and "loss 0.2500, accuracy 0.5000" in shown and "4/10" in shown
    assert shown.index("compiling") < shown.index("loss")

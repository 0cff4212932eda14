"""What a run tells: progress on the terminal, metrics.jsonl, TensorBoard events."""

import json
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TextIO

from common.errors import InputError

# Seconds between plain progress lines where there is no terminal to draw a bar on.
PLAIN_SECONDS = 30.0


# What a standard stream did not take, and why.
lost_lines: list[str] = []


def say(message: str) -> None:
    """A line for the person, at once even through a pipe.

    What is computed matters more: where a full disk takes no line, the program goes on, and the
    launcher says so at its end.
    """
    _print(message, sys.stdout)


def warn(message: str) -> None:
    """A line beside the output proper."""
    _print(message, sys.stderr)


def _print(message: str, stream: TextIO) -> None:
    try:
        print(message, file=stream, flush=True)
    except BrokenPipeError:  # who read it is gone
        raise
    except OSError as error:
        lost_lines.append(f"{error.strerror}: {message[:80]}")


class RunWriter:
    """Appends one row of metrics per epoch to metrics.jsonl and to TensorBoard.

    `history` holds the rows, `{"epoch": 1, "step": 351, "train/loss": ..., ...}`. What cannot be
    written, on a full disk, does not stop the run: the rows are written when there is space.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._path = folder / "metrics.jsonl"
        self.history: list[dict[str, Any]] = []
        self._unwritten = False
        self._events: Path | None = None

    def count_rows(self) -> int:
        """How many rows, of finished epochs, an earlier start of the run has left."""
        return len(self._path.read_bytes().splitlines()) if self._path.exists() else 0

    def read_rows(self, finished_epochs: int) -> list[dict[str, Any]]:
        """The rows of finished epochs that can be read, in order."""
        if not self._path.exists():
            return []
        rows = parse_rows(self._path.read_text("utf-8", "replace"))
        return [row for row in rows if row["epoch"] <= finished_epochs]

    def open(self, finished_epochs: int) -> None:
        """Start writing after the rows of the epochs that are finished.

        Later rows, of a run that was killed before its checkpoint, are dropped, since the
        resumed run writes them again.
        """
        self.history = self.read_rows(finished_epochs)
        try:
            self._rewrite()
            self._events = _open_events(self.folder / "tensorboard", self.history)
        except OSError as error:
            raise InputError(
                f"{self.folder} cannot be written: {error.strerror or error}"
            ) from None

    def write(self, row: dict[str, Any]) -> None:
        """Add an epoch's row, readable by others at once."""
        self.history.append(row)
        try:
            if self._unwritten:
                self._rewrite()
            else:
                with self._path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        except OSError as error:
            self._unwritten = True
            warn(
                f"{self._path} cannot be written ({error.strerror}): free some space; the run "
                "goes on and tries again after the next epoch"
            )
        self._write_events(row)

    def _rewrite(self) -> None:
        """Write the whole history, in one piece."""
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in self.history))
        temporary.replace(self._path)
        self._unwritten = False

    def _write_events(self, row: dict[str, Any]) -> None:
        if self._events is None:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        names = [name for name in row if name not in ("epoch", "step")]
        values = [Summary.Value(tag=name, simple_value=row[name]) for name in names]
        event = Event(step=row["step"], wall_time=time.time(), summary=Summary(value=values))
        try:
            _append_event(self._events, event)
        except OSError as error:
            warn(f"{self._events} ends here: {error.strerror}")
            self._events = None

    def scores(self, epoch: int) -> dict[str, float]:
        """Training and validation scores of an epoch."""
        row = next((row for row in self.history if row["epoch"] == epoch), {})
        return {name: row[name] for name in row if name.startswith(("train/", "val/"))}

    def close(self) -> None:
        """Write what could not be written before."""
        if self._unwritten:
            with suppress(OSError):  # `write` has said so
                self._rewrite()


def _open_events(folder: Path, history: list[dict[str, Any]]) -> Path:
    """A new event file, which tells TensorBoard to forget what came after the history.

    Not by tensorboardX's SummaryWriter: its thread dies of a full disk, and its queue needs
    /dev/shm. The files are numbered, since the clock may have been put back between two starts.
    """
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    folder.mkdir(exist_ok=True)
    path = folder / f"events.{len(list(folder.iterdir())):04}.tfevents"
    step, now = history[-1]["step"] + 1 if history else 0, time.time()
    _append_event(path, Event(wall_time=now, file_version="brain.Event:2"))
    start = SessionLog(status=SessionLog.START)
    _append_event(path, Event(wall_time=now, step=step, session_log=start))
    return path


def _append_event(path: Path, event: Any) -> None:
    """Append a TFRecord: length, its checksum, content, its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
    with path.open("ab", buffering=0) as file:
        file.write(b"".join((length, next(sums), content, next(sums))))


def parse_rows(text: str) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl that can be read, one an epoch, in order."""
    rows = {row["epoch"]: row for row in map(_parse_row, text.splitlines()) if row}
    return [rows[epoch] for epoch in sorted(rows)]


def _parse_row(line: str) -> dict[str, Any] | None:
    """A row, or None for a line that a killed process left incomplete or somebody changed."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and all(type(v) in (int, float) for v in row.values())
    counted = whole and all(type(row.get(k)) is int for k in ("epoch", "step"))
    return row if counted and 0 < row["epoch"] <= row["step"] < 2**63 else None


class EpochBar:
    """An epoch's progress: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, title: str, total: int, done: int, unit: str, scale: float):
        """Args: total and done in steps; `scale` examples, called `unit`, make a step."""
        self._title, self._total, self._done = title, total, done
        self._unit, self._scale = unit, scale
        self._told = time.monotonic()
        self._told_compiling = False
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            layout = (
                "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining} left{postfix}"
            )
            self._bar = tqdm(
                total=total, initial=done, desc=title, bar_format=layout, dynamic_ncols=True,
                leave=False,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def compiles(self) -> None:
        """Tell that the next step is compiled first, which takes seconds to minutes."""
        if self._bar is not None:
            self._bar.set_postfix_str("compiling")
        elif not self._told_compiling:
            say(f"{self._title}: compiling the training step")
            self._told_compiling = True

    def step(self, means: dict[str, float], steps_per_second: float, count: int = 1) -> None:
        """`count` more steps, together.

        Args:
            means: of the epoch so far.
            steps_per_second: without those that compile; 0 where no other was made.
            count: how many steps.
        """
        self._done += count
        shown = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
        if steps_per_second:
            shown += f", {steps_per_second * self._scale:.0f} {self._unit}/s"
        if self._bar is not None:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(count)
        elif steps_per_second and time.monotonic() - self._told > PLAIN_SECONDS:
            self._told = time.monotonic()
            left = (self._total - self._done) / steps_per_second
            say(f"{self._title} step {self._done}/{self._total} {shown}, {left:.0f} s left")

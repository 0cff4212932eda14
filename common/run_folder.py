"""The run folder: a new one is made, an old one is resumed, nothing is overwritten.

config.json      the configuration
command.txt      what was typed, a line for each start
inputs.json      what the weights need to be used: classes, channel statistics, ...
checkpoints/     see common/checkpoint.py
metrics.jsonl    a row per epoch
tensorboard/     the same as events
test_counts.npz  what was right in each test example, to compare runs on the same examples
summary.json     scores, speed, what repeats the run; and the pictures beside it
lock             the process that trains here, see common/claim.py
"""

import dataclasses
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from common import config as configs
from common.errors import InputError
from common.writer import say, warn

# A resumed run may find its data elsewhere and have other devices; all else is the run's.
FREE_ON_RESUME = (
    "data_dir", "train_file", "val_file", "test_file", "devices", "checkpoint_minutes"
)  # fmt: skip


def default_workdir(task: str, model: str) -> Path:
    """runs/TASK-MODEL-TIME, new."""
    stem = f"{task}-{model}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = [stem, *(f"{stem}-{n}" for n in range(2, 100))]
    return next(p for p in (Path("runs") / name for name in names) if not p.exists())


def check_run(workdir: Path, config: Any, *, resume: bool) -> None:
    """Whether the folder is new, or with `resume` perhaps this very run; it is not written.

    Raises:
        InputError: the folder holds a run and `resume` is off, a run of another
            configuration, or parts of a run.
    """
    path = workdir / "config.json"
    if not path.exists():
        left = [name for name in ("checkpoints", "metrics.jsonl") if (workdir / name).exists()]
        if left:
            raise InputError(
                f"{workdir} holds {' and '.join(left)} but no config.json: restore that file from "
                "a copy, or choose another --workdir"
            )
        if resume:
            say(f"no run in {workdir} yet: starting it")
    elif resume:
        check_same(configs.load(type(config), path), config)
    else:
        raise InputError(
            f"--workdir={workdir} already holds a run: continue it with --resume, or choose "
            "another folder"
        )


def open_run(workdir: Path, config: Any, inputs: dict[str, Any]) -> None:
    """Make the folder of a run that `check_run` let pass, or check a resumed one's data.

    Raises:
        InputError: the run was trained on other data, or the folder cannot be written.
    """
    config_path, inputs_path = workdir / "config.json", workdir / "inputs.json"
    if inputs_path.exists() and load_inputs(workdir) != inputs:
        raise InputError(
            f"the data differ from those that the run in {workdir} was trained on: give the same"
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        configs.save(config, config_path)
        configs.write_json(inputs_path, inputs)
    except OSError as error:
        raise InputError(f"--workdir={workdir} cannot be written: {error.strerror}") from None


def check_same(saved: Any, given: Any) -> None:
    """InputError naming the first setting in which a resumed run would differ."""
    for name, old in dataclasses.asdict(saved).items():
        new = getattr(given, name)
        if new != old and name not in FREE_ON_RESUME:
            raise InputError(
                f"--{name}={new} differs from the run's {old}: a resumed run keeps its "
                "settings; leave the flag out, or start another --workdir"
            )


def load_inputs(workdir: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """What `open_run` was given as `inputs`; InputError unless the `needed` ones are there."""
    path = workdir / "inputs.json"
    inputs = configs.read_json(path)
    if not set(needed) <= set(inputs):
        raise InputError(f"{path} is damaged: copy the whole run folder again")
    return inputs


def note_command(workdir: Path, command: str) -> str:
    """Add what was typed to command.txt; returns its first line, which began the run."""
    path = workdir / "command.txt"
    with path.open("a+", encoding="utf-8", errors="backslashreplace") as file:  # a path may be odd
        file.write(command + "\n")
        file.seek(0)
        return file.readline().rstrip("\n")


def write_summary(
    workdir: Path, summary: Mapping[str, Any], counts: Mapping[str, np.ndarray]
) -> None:
    """Write test_counts.npz, then summary.json, which says that the run is complete.

    Args:
        workdir: the run folder.
        summary: the contents of summary.json.
        counts: by metric ("accuracy", "exact_f1", ...) integers [N, 3]: what there was to
            find in each test example, what was found and what of it was right. The metric
            is the F1 of their sums, which for an image (1, 1, right) is the accuracy.

    Raises:
        InputError: they cannot be written.
    """
    try:
        np.savez_compressed(workdir / "test_counts.npz", **counts)  # type: ignore[arg-type]
        configs.write_json(workdir / "summary.json", summary)
    except OSError as error:
        raise InputError(
            f"{workdir}/summary.json cannot be written ({error.strerror}): free some space; "
            "--resume writes it, without training again"
        ) from None


@contextmanager
def scoring() -> Iterator[None]:
    """While a trained model is scored: Ctrl-C is told what is left."""
    try:
        yield
    except KeyboardInterrupt:
        warn("all is trained and saved, but not scored: --resume does that, without training again")
        raise


def try_to_draw(workdir: Path, draw: Callable[[], None]) -> None:
    """Call `draw`; where its files are not written, say so: the scores are safe already."""
    later = "--resume draws them, without training again"
    try:
        draw()
    except OSError as error:
        warn(f"pictures are missing in {workdir} ({error.strerror}): free some space; {later}")
    except KeyboardInterrupt:
        warn(f"pictures are missing in {workdir}: {later}")
        raise


def describe_code(config: Any) -> dict[str, Any]:
    """What repeats a run besides its command and data; asked at its start, for summary.json.

    Returns:
        "settings", the whole configuration; Python and the libraries that numbers depend on;
        and where the code is a git checkout "commit", and "dirty", whether files differ from it.
    """
    names = ("jax", "jaxlib", "flax", "optax", "numpy")
    versions = {"python": platform.python_version()} | {n: metadata.version(n) for n in names}
    return {"settings": dataclasses.asdict(config), **versions, **_commit()}


def _commit() -> dict[str, Any]:
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # a folder above may be somebody's repository
        return {}

    def git(*words: str) -> str:
        found = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        )
        return found.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):  # no git, or not our repository
        return {}

"""Checkpoints of a run: the latest states and the best one, by orbax.

    FOLDER/latest/STEP/   the last two states
    FOLDER/best/STEP/     the state that validation selected

A run is resumed from the newest that is whole; a damaged one is renamed to STEP.damaged, and one
that is being replaced is STEP.kept meanwhile.
Each holds the whole `TrainState`, as JSON the loop's progress, and a checksum of both, as orbax
does not notice a bit that has changed on the disk. Orbax writes to a temporary folder and
renames it, so a checkpoint is there completely or not at all.
"""

import hashlib
import json
import logging
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from common.errors import InputError, is_out_of_memory
from common.state import TrainState
from common.writer import warn

STEP = re.compile("0|[1-9][0-9]*")  # the names of checkpoints' folders
FULL = 1 << 20  # bytes that a checkpoint needs besides its arrays, and more
# Of several processes only the first writes and reads; orbax would wait for the others.
_FIRST_ALONE = ocp.options.MultiprocessingOptions(
    primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
)


class Place(NamedTuple):
    """Where a checkpoint is: `latest` or `best`, and its step."""

    name: str
    step: int


class Checkpoints:
    """Reads and writes the checkpoints below `folder`, which is created when needed."""

    def __init__(self, folder: Path):
        # Orbax logs every save, and tracebacks of a failed one; a person reads one line instead.
        for logger in ("absl", "asyncio"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        sys.excepthook = _show_exception
        self._folders = {name: folder / name for name in ("latest", "best")}
        self._managers: dict[str, ocp.CheckpointManager] = {}

    def _manager(self, name: str) -> ocp.CheckpointManager:
        if name not in self._managers:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=2 if name == "latest" else 1,
                enable_async_checkpointing=False,
                multiprocessing_options=_FIRST_ALONE,
                create=False,
            )
            self._folders[name].mkdir(parents=True, exist_ok=True)
            self._managers[name] = ocp.CheckpointManager(
                self._folders[name].absolute(), options=options
            )
        return self._managers[name]

    def exists(self) -> bool:
        """Whether there is a complete checkpoint."""
        return bool(self._newest_first())

    def newest_step(self, name: str) -> int | None:
        """The step of the newest complete checkpoint of that name, or None."""
        return next((place.step for place in self._places(name)), None)

    def save(self, name: str, state: TrainState, progress: dict[str, Any]) -> None:
        """Save under `latest` or `best`; a step that is there with this progress stays.

        Raises:
            InputError: it cannot be written.
        """
        manager, step = self._manager(name), int(state.step)
        place = Place(name, step)
        path = self._path(place)
        if step in manager.all_steps() and self._progress(place) == progress:
            return
        args = {
            "state": ocp.args.StandardSave(state),
            "progress": ocp.args.JsonSave(progress),
            "checksum": ocp.args.JsonSave({"sha256": checksum(state, progress)}),
        }
        hook, sys.unraisablehook = sys.unraisablehook, _ignore  # of threads that a failure leaves
        try:
            with self._replacing(place):
                saved = manager.save(step, args=ocp.args.Composite(**args))
        except Exception as error:  # orbax raises many kinds, for a full disk ValueError
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
            full = shutil.disk_usage(self._folders[name]).free < size + FULL
            reason = "the disk is full" if full else " ".join(str(error).split())[:120]
            raise InputError(
                f"{path} cannot be written ({reason}): free some space, then --resume; "
                f"the last good checkpoint is {self.describe_newest()}"
            ) from None
        sys.unraisablehook = hook
        if not saved:
            raise InputError(f"{path} was not saved: {path.parent} holds later steps of a run")

    @contextmanager
    def _replacing(self, place: Place) -> Iterator[None]:
        """What is there has another name meanwhile, and its own again unless there is a new one."""
        path = self._path(place)
        kept = path.with_name(f"{path.name}.kept")
        if path.exists():
            shutil.rmtree(kept, ignore_errors=True)
            path.rename(kept)
            self._manager(place.name).reload()
        try:
            yield
        finally:
            if path.exists():
                shutil.rmtree(kept, ignore_errors=True)
            elif kept.exists():
                self._put_back(kept, place)

    def recover(self, like: TrainState) -> None:
        """Give the states whose replacement did not come to its end their names back.

        Args:
            like: the state's shapes and types; what replaced a state must be whole.
        """
        for name, folder in self._folders.items():
            for kept in folder.glob("*.kept"):
                if not STEP.fullmatch(kept.stem) or not kept.is_dir():
                    continue
                place = Place(name, int(kept.stem))
                if self._try_read(place, like):
                    shutil.rmtree(kept, ignore_errors=True)
                    continue
                if self._path(place).exists():
                    self._set_aside(place)
                self._put_back(kept, place)

    def _put_back(self, kept: Path, place: Place) -> None:
        kept.rename(self._path(place))
        self._manager(place.name).reload()

    def restore(self, name: str, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest whole state of `latest` or `best` and its progress; else as `resume`."""
        if not self._places(name):
            run = self._folders[name].parent.parent
            unfinished = f"finish the run by --resume --workdir={run}"
            remedy = unfinished if self.exists() else "train the run first"
            raise InputError(f"{self._folders[name]} holds no checkpoint: {remedy}")
        return self._newest_whole(self._places(name), like)[0]

    def resume(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest whole state of all and its progress, for a run that goes on.

        What is damaged is set aside, so that the run can save those steps again: also an older
        `best`, so that it can select another.

        Args:
            like: the state's shapes and types, as `Devices.abstract` gives them.

        Raises:
            InputError: there is none, or it belongs to another model; nothing is changed then.
        """
        places = self._newest_first()
        found, damaged = self._newest_whole(places, like)
        for place in places[len(damaged) + 1 :]:
            if place.name == "best" and self._try_read(place, like) is None:
                warn(f"{self._path(place)} is damaged")
                damaged.append(place)
        for place in damaged:
            self._set_aside(place)
        return found

    def find(
        self, step: int, epoch: int, like: TrainState
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The whole `latest` of that step if it is the end of that epoch, else None."""
        found = self._try_read(Place("latest", step), like)
        return found if found and (found[1]["epoch"], found[1]["sums"]) == (epoch, {}) else None

    def _set_aside(self, place: Place) -> None:
        """Give a damaged checkpoint another name, as it may be whole to who knows more."""
        path = self._path(place)
        names = [f"{path.name}.damaged{n}" for n in ("", *range(2, 1000))]
        path.rename(next(p for p in map(path.with_name, names) if not p.exists()))
        self._manager(place.name).reload()

    def _newest_whole(
        self, places: Sequence[Place], like: TrainState
    ) -> tuple[tuple[TrainState, dict[str, Any]], list[Place]]:
        """What the first place holds that can be read, and the damaged places before it."""
        for number, place in enumerate(places):
            if found := self._try_read(place, like):
                for damaged in places[:number]:
                    warn(f"{self._path(damaged)} is damaged; {place.name}/{place.step} is whole")
                return found, list(places[:number])
        folders = " or ".join(dict.fromkeys(str(self._folders[place.name]) for place in places))
        others = set(self._newest_first()) - set(places)
        remedy = "look for another by --resume, or " if others else ""
        sys.unraisablehook = _ignore  # of coroutines that orbax leaves
        raise InputError(
            f"no checkpoint in {folders} can be read as this run's model: either it is damaged or "
            f"config.json was changed; {remedy}restore the folder from a copy; if another version "
            "made it, use that version, or train again"
        )

    def _try_read(self, place: Place, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """A state and its progress, None where they are damaged or missing."""
        try:
            return self._read(place, like)
        except Exception as error:  # orbax raises many kinds for a damaged folder
            if is_out_of_memory(error):
                raise
            return None

    def _read(self, place: Place, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """A state and its progress; raises any kind of exception where they are damaged."""
        args = {"state": ocp.args.StandardRestore(like), "progress": ocp.args.JsonRestore()}
        if (self._path(place) / "checksum").exists():  # else of an earlier version
            args["checksum"] = ocp.args.JsonRestore()
        found = self._manager(place.name).restore(place.step, args=ocp.args.Composite(**args))
        state, progress = found["state"], found["progress"]
        if "checksum" in args and found["checksum"]["sha256"] != checksum(state, progress):
            raise ValueError("the checksum differs")
        if int(state.step) != place.step:
            raise ValueError("the folder was renamed")
        return state, progress

    def _progress(self, place: Place) -> Any:
        args = ocp.args.Composite(progress=ocp.args.JsonRestore())
        return self._manager(place.name).restore(place.step, args=args)["progress"]

    def _places(self, name: str) -> list[Place]:
        """The complete checkpoints of that name, newest first, as their folders tell."""
        folder = self._folders[name]
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        steps = sorted((int(step) for step in names if STEP.fullmatch(step)), reverse=True)
        return [Place(name, step) for step in steps]

    def _newest_first(self) -> list[Place]:
        """The complete checkpoints of both names; of one step, the latest before the best."""
        places = [place for name in self._folders for place in self._places(name)]
        return sorted(places, key=lambda place: -place.step)

    def describe_newest(self) -> str:
        """The folder of the newest state, or "none"."""
        return next((str(self._path(place)) for place in self._newest_first()), "none")

    def _path(self, place: Place) -> Path:
        return self._folders[place.name] / str(place.step)


def _ignore(_: object) -> None:
    pass


_shown_before = sys.excepthook


def _show_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Without those of threads that orbax leaves after it could not read a damaged folder."""
    if str(error) != "Event loop is closed":
        _shown_before(kind, error, trace)


def checksum(state: TrainState, progress: dict[str, Any]) -> str:
    """SHA-256 of every array with its name, type and shape, and of the progress."""
    digest = hashlib.sha256(json.dumps(progress, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

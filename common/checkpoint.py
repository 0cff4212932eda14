"""Checkpoints of a run: the latest states and the best one, by orbax.

    FOLDER/latest/STEP/   the last two states, to resume from
    FOLDER/best/STEP/     the state that validation selected

Each holds the whole `TrainState`, as JSON the loop's progress, and a checksum of both, as orbax
does not notice a bit that has changed on the disk. Orbax writes to a temporary folder and
renames it, so a checkpoint is there completely or not at all.
"""

import hashlib
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from common.errors import InputError
from common.state import TrainState
from common.writer import warn

FULL = 1 << 20  # bytes that a checkpoint needs besides its arrays, and more
# Of several processes only the first writes and reads; orbax would wait for the others.
_FIRST_ALONE = ocp.options.MultiprocessingOptions(
    primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
)


class Checkpoints:
    """Reads and writes the checkpoints below `folder`, which is created when needed."""

    def __init__(self, folder: Path):
        # Orbax logs every save, and tracebacks of a failed one; a person reads one line instead.
        for logger in ("absl", "asyncio"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        self._folders = {name: folder.absolute() / name for name in ("latest", "best")}
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
            self._managers[name] = ocp.CheckpointManager(self._folders[name], options=options)
        return self._managers[name]

    def exists(self, name: str = "latest") -> bool:
        """Whether there is a complete checkpoint of that name."""
        return self.newest_step(name) is not None

    def newest_step(self, name: str) -> int | None:
        """The step of the newest complete checkpoint of that name, or None."""
        return next(iter(self._steps(name)), None)

    def save(self, name: str, state: TrainState, progress: dict[str, Any]) -> None:
        """Save under `latest` or `best`; a step that is there with this progress stays.

        Raises:
            InputError: it cannot be written.
        """
        manager, step = self._manager(name), int(state.step)
        path = self._folders[name] / str(step)
        if step in manager.all_steps():
            if self._progress(name, step) == progress:
                return
            manager.delete(step)
        args = {
            "state": ocp.args.StandardSave(state),
            "progress": ocp.args.JsonSave(progress),
            "checksum": ocp.args.JsonSave({"sha256": checksum(state, progress)}),
        }
        hook, sys.unraisablehook = sys.unraisablehook, _ignore  # of threads that a failure leaves
        try:
            saved = manager.save(step, args=ocp.args.Composite(**args))
        except Exception as error:  # orbax raises many kinds, for a full disk ValueError
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
            full = shutil.disk_usage(self._folders[name]).free < size + FULL
            reason = "the disk is full" if full else " ".join(str(error).split())[:120]
            raise InputError(
                f"{path} cannot be written ({reason}): free some space, then --resume; "
                f"the last good checkpoint is {self.describe_latest()}"
            ) from None
        sys.unraisablehook = hook
        if not saved:
            raise InputError(f"{path} was not saved: {path.parent} holds later steps of a run")

    def restore(
        self, name: str, like: TrainState, *, repair: bool = False
    ) -> tuple[TrainState, dict[str, Any]]:
        """The newest readable state and its progress.

        Args:
            name: `latest` or `best`.
            like: the state's shapes and types, as `Devices.abstract` gives them.
            repair: delete what is damaged, so that the run can save those steps again.

        Raises:
            InputError: there is none, or it belongs to another model.
        """
        if not self.exists(name):
            raise InputError(f"{self._folders[name]} holds no checkpoint: train the run first")
        damaged: list[int] = []
        for step in self._steps(name):
            try:
                found = self._read(name, step, like)
            except Exception:  # orbax raises many kinds for a damaged folder
                damaged.append(step)
                continue
            for bad in damaged:
                warn(f"{self._folders[name] / str(bad)} is damaged; step {step} is whole")
                if repair:
                    self._manager(name).delete(bad)
            return found
        raise InputError(
            f"no checkpoint in {self._folders[name]} can be read as this run's model: either it is "
            "damaged or config.json was changed; restore the folder from a copy"
        )

    def drop_damaged_best(self, like: TrainState) -> None:
        """Delete a `best` that cannot be read, so that a resumed run can select another.

        Args:
            like: as for `restore`, by which `latest` was read: so it is no other model's.
        """
        for step in self._steps("best"):
            try:
                self._read("best", step, like)
            except Exception:
                warn(f"{self._folders['best'] / str(step)} is damaged")
                self._manager("best").delete(step)

    def _read(self, name: str, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """A state and its progress; raises any kind of exception where they are damaged."""
        args = {"state": ocp.args.StandardRestore(like), "progress": ocp.args.JsonRestore()}
        if (self._folders[name] / str(step) / "checksum").exists():  # else of an earlier version
            args["checksum"] = ocp.args.JsonRestore()
        found = self._manager(name).restore(step, args=ocp.args.Composite(**args))
        state, progress = found["state"], found["progress"]
        if "checksum" in args and found["checksum"]["sha256"] != checksum(state, progress):
            raise ValueError("the checksum differs")
        return state, progress

    def _progress(self, name: str, step: int) -> Any:
        args = ocp.args.Composite(progress=ocp.args.JsonRestore())
        return self._manager(name).restore(step, args=args)["progress"]

    def _steps(self, name: str) -> list[int]:
        """The complete checkpoints, newest first, as their folders tell."""
        folder = self._folders[name]
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted((int(path.name) for path in found if path.name.isdigit()), reverse=True)

    def describe_latest(self) -> str:
        """The folder of the newest state, or "none"."""
        step = self.newest_step("latest")
        return "none" if step is None else str(self._folders["latest"] / str(step))


def _ignore(_: object) -> None:
    pass


def checksum(state: TrainState, progress: dict[str, Any]) -> str:
    """SHA-256 of every array with its name, type and shape, and of the progress."""
    digest = hashlib.sha256(json.dumps(progress, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

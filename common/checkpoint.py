"""Checkpoints of a run: the latest states and the best one, by orbax.

    FOLDER/latest/STEP/   the last two states, to resume from
    FOLDER/best/STEP/     the state that validation selected

Each holds the whole `TrainState` and, as JSON, the loop's progress. Orbax writes to a
temporary folder and renames it, so a checkpoint is there completely or not at all.
"""

import logging
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from common.errors import InputError
from common.state import TrainState
from common.writer import warn

# Of several processes only the first writes and reads; orbax would wait for the others.
_FIRST_ALONE = ocp.options.MultiprocessingOptions(
    primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
)


class Checkpoints:
    """Reads and writes the checkpoints below `folder`, which is created when needed."""

    def __init__(self, folder: Path):
        # Orbax tells the root logger about every save; a person has the progress bar.
        logging.getLogger("absl").setLevel(logging.ERROR)
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
        return self._folders[name].is_dir() and self._manager(name).latest_step() is not None

    def save(self, name: str, state: TrainState, progress: dict[str, Any]) -> None:
        """Save under `latest` or `best`; a step that is there already is the same state."""
        manager, step = self._manager(name), int(state.step)
        if step in manager.all_steps():
            return
        args = {"state": ocp.args.StandardSave(state), "progress": ocp.args.JsonSave(progress)}
        path = self._folders[name] / str(step)
        try:
            saved = manager.save(step, args=ocp.args.Composite(**args))
        except Exception as error:  # orbax raises many kinds, for a full disk ValueError
            raise InputError(
                f"{path} cannot be written ({' '.join(str(error).split())[:120]}): free some "
                f"space; --resume goes on from {self.describe_latest()}"
            ) from None
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
        manager = self._manager(name)
        args = {"state": ocp.args.StandardRestore(like), "progress": ocp.args.JsonRestore()}
        damaged: list[int] = []
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                found = manager.restore(step, args=ocp.args.Composite(**args))
            except Exception:  # orbax raises many kinds for a damaged folder
                damaged.append(step)
                continue
            for bad in damaged:
                warn(f"{self._folders[name] / str(bad)} is damaged; going on from step {step}")
                if repair:
                    manager.delete(bad)
            return found["state"], found["progress"]
        raise InputError(
            f"no checkpoint in {self._folders[name]} can be read as this run's model: either it is "
            "damaged or config.json was changed; restore the folder from a copy"
        )

    def describe_latest(self) -> str:
        """The folder of the newest state, or "none"."""
        if not self.exists("latest"):
            return "none"
        return str(self._folders["latest"] / str(self._manager("latest").latest_step()))

"""Which launcher flags go with which mode; the same rules for every task."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from common import processes
from common.claim import claim
from common.config import load, override
from common.errors import InputError
from common.run_folder import FREE_ON_RESUME, default_workdir
from common.training import TrainingConfig

if TYPE_CHECKING:
    from common.plan import Session

OF_STUDIES = ("seeds", "budget", "jobs", "vectors", "vmap")  # flags of the launcher

Config = TypeVar("Config", bound=TrainingConfig)


def was_given(value: Any) -> bool:
    """Whether a flag of the launcher has this value because it was typed; 0 was."""
    return value not in (None, []) and value is not False


def check_flags(
    launcher: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    used: Mapping[str, set[str]],
    of_a_run: Mapping[str, set[str]],
) -> None:
    """Raise an InputError for a flag that the mode does not use, or lacks.

    Args:
        launcher: values of the launcher's own flags.
        settings: the configuration flags that were given, by name.
        used: the launcher flags of each mode.
        of_a_run: for the modes that use a finished run, the settings that may be said again:
            where the run is used now.
    """
    mode = launcher["mode"]
    for name, value in launcher.items():
        if was_given(value) and name in OF_STUDIES:
            raise InputError(f"--{name} is for studies: leave it out, or name one by --study")
        if was_given(value) and name not in used[mode] | {"task", "mode"}:
            raise InputError(f"--{name} does not go with --mode={mode}: leave it out")
    if mode in of_a_run:
        if not launcher["run"]:
            raise InputError(f"--mode={mode} needs --run=FOLDER, the folder of a finished run")
        folders: dict[str, str] = {}
        for run in launcher["run"]:
            folder = os.path.realpath(run)
            if folder in folders:
                raise InputError(
                    f"--run={folders[folder]} and --run={run} are one run: leave one out"
                )
            folders[folder] = run
        for name in settings:
            if name not in of_a_run[mode]:
                raise InputError(f"--{name} is fixed by the run in --run: leave it out")
    if mode == "train" and launcher["resume"] and not launcher["workdir"]:
        raise InputError("--resume needs --workdir=FOLDER, the run to continue")


def training_run(
    launcher: Mapping[str, Any],
    settings: Mapping[str, Any],
    make_config: Callable[[dict[str, Any]], Config],
    check_config: Callable[[Config], None],
    kind: type[Config],
) -> tuple[Config, Path]:
    """The configuration to train, and the run folder.

    The configuration is that of the run to resume, else what the flags ask for. Of several
    processes the first decides, and it alone has the run folder.
    """
    given = launcher["workdir"]

    def decide() -> dict[str, Any]:
        if launcher["resume"] and (Path(given) / "config.json").exists():
            config = override(load(kind, Path(given) / "config.json"), settings)
            check_config(config)
        else:
            config = make_config(dict(settings))
        workdir = given or default_workdir(config.task, config.model)
        return {"config": asdict(config), "workdir": str(workdir), "settings": dict(settings)}

    found = processes.from_first(decide)
    _check_settings(settings, found["settings"])
    workdir = Path(found["workdir"]) if processes.is_first() else processes.scratch_folder()
    return kind(**found["config"]), workdir


def train(
    launcher: Mapping[str, Any],
    settings: Mapping[str, Any],
    command: str,
    *,
    configs: tuple[type[Config], Callable[[dict[str, Any]], Config], Callable[[Config], None]],
    begin: "Callable[..., Session]",
) -> None:
    """The mode "train" of a task: one run, or those that --together lists.

    Args:
        launcher: values of the launcher's own flags.
        settings: the configuration flags that were given.
        command: what was typed.
        configs: the configuration's class, what makes one of flags, and what checks one.
        begin: of the task's train.py.
    """
    kind, make_config, check_config = configs

    def find(launcher: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Config, Path]:
        return training_run(launcher, settings, make_config, check_config, kind)

    if launcher["together"]:
        from common.together import train_together

        train_together(launcher, settings, kind, find, begin)
        return
    from common import loop

    config, workdir = find(launcher, settings)
    with claim(workdir):
        loop.train(begin(config, workdir, resume=launcher["resume"], command=command))


def _check_settings(own: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """InputError unless this process has the first one's settings, but for its data and devices."""
    for name in sorted({*own, *first} - set(FREE_ON_RESUME)):
        if own.get(name) != first.get(name):
            mine, its = (given.get(name, "none") for given in (own, first))
            raise InputError(
                f"--{name}: this process has {mine}, process 0 {its}: start all with the same flags"
            )

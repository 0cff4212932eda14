"""The modes of `--task=cifar`, as launch.py calls them."""

from pathlib import Path
from typing import Any

from common.config import load, override
from common.errors import InputError
from common.run_folder import default_workdir
from vision.config import VisionConfig, check_config, make_config

# Launcher flags that a mode uses; another one given beside it is a mistake worth naming.
USED = {
    "train": {"workdir", "resume"},
    "eval": {"run", "format"},
    "predict": {"run", "input", "format", "top"},
    "describe": {"workdir"},
}
# Of the configuration, a finished run lets these be said again: where it is used now.
OF_A_RUN = {"eval": {"dataset", "data_dir", "devices"}, "predict": {"devices"}}


def run(launcher: dict[str, Any], settings: dict[str, Any], command: str) -> None:
    """Do what the flags ask for.

    Args:
        launcher: values of the launcher's own flags.
        settings: the configuration flags that were given, by name.
        command: what was typed.
    """
    mode = launcher["mode"]
    _check_flags(mode, launcher, settings)
    if mode == "train":
        _train(launcher, settings, command)
    elif mode == "describe":
        from vision.architecture import show

        show(make_config(settings), launcher["workdir"])
    elif mode == "eval":
        from vision.evaluate import evaluate

        settings = {"devices": 0} | settings
        evaluate(Path(launcher["run"]), settings, as_json=launcher["format"] == "jsonl")
    else:
        from vision.predict import predict

        predict(
            Path(launcher["run"]),
            [Path(name) for name in launcher["input"]],
            top=3 if launcher["top"] is None else launcher["top"],
            as_json=launcher["format"] == "jsonl",
            devices=settings.get("devices", 0),
        )


def _check_flags(mode: str, launcher: dict[str, Any], settings: dict[str, Any]) -> None:
    for name, value in launcher.items():
        if value and name not in USED[mode] | {"task", "mode"}:
            raise InputError(f"--{name} does not go with --mode={mode}: leave it out")
    if mode in ("eval", "predict"):
        if not launcher["run"]:
            raise InputError(f"--mode={mode} needs --run=FOLDER, the folder of a finished run")
        for name in settings:
            if name not in OF_A_RUN[mode]:
                raise InputError(f"--{name} is fixed by the run in --run: leave it out")
    if mode == "predict" and not launcher["input"]:
        raise InputError("--mode=predict needs --input=IMAGE_OR_FOLDER, once or more")
    if mode == "train" and launcher["resume"] and not launcher["workdir"]:
        raise InputError("--resume needs --workdir=FOLDER, the run to continue")


def _train(launcher: dict[str, Any], settings: dict[str, Any], command: str) -> None:
    from vision.train import train

    given = launcher["workdir"]
    if launcher["resume"] and (Path(given) / "config.json").exists():
        config = override(load(VisionConfig, Path(given) / "config.json"), settings)
        check_config(config)
    else:
        config = make_config(settings)
    workdir = Path(given) if given else default_workdir(config.task, config.model)
    train(config, workdir, resume=launcher["resume"], command=command)

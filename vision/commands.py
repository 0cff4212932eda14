"""The modes of `--task=cifar`, as launch.py calls them."""

from pathlib import Path
from typing import Any

from common import modes, processes
from common.config import check_choice
from common.errors import InputError
from vision.config import VisionConfig, check_config, make_config

USED = {
    "train": {"workdir", "resume", "together", *processes.FLAGS},
    "eval": {"run", "format"},
    "predict": {"run", "input", "format", "top"},
    "describe": {"workdir"},
}
OF_A_RUN = {"eval": {"dataset", "data_dir", "devices", "tta"}, "predict": {"devices", "tta"}}
FORMATS = ("table", "jsonl")


def run(launcher: dict[str, Any], settings: dict[str, Any], command: str) -> None:
    """Do what the flags ask for.

    Args:
        launcher: values of the launcher's own flags.
        settings: the configuration flags that were given, by name.
        command: what was typed.
    """
    mode = launcher["mode"]
    modes.check_flags(launcher, settings, used=USED, of_a_run=OF_A_RUN)
    as_json = check_choice("--format", launcher["format"] or "table", FORMATS) == "jsonl"
    if mode == "train":
        _train(launcher, settings, command)
    elif mode == "describe":
        from vision.architecture import show

        show(make_config(settings), launcher["workdir"])
    elif mode == "eval":
        from vision.evaluate import evaluate

        evaluate(_one_run(launcher), {"devices": 0} | settings, as_json=as_json)
    else:
        from vision.predict import predict

        if not launcher["input"]:
            raise InputError("--mode=predict needs --input=IMAGE_OR_FOLDER, once or more")
        predict(
            _one_run(launcher),
            [Path(name) for name in launcher["input"]],
            top=3 if launcher["top"] is None else launcher["top"],
            as_json=as_json,
            changes={"devices": 0} | settings,
        )


def _one_run(launcher: dict[str, Any]) -> Path:
    if len(launcher["run"]) > 1:
        raise InputError("--run may be given once for --task=cifar")
    return Path(launcher["run"][0])


def _train(launcher: dict[str, Any], settings: dict[str, Any], command: str) -> None:
    from vision.train import begin

    configs = (VisionConfig, make_config, check_config)
    modes.train(launcher, settings, command, configs=configs, begin=begin)

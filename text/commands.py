"""The modes of `--task=aspect`, as launch.py calls them."""

from pathlib import Path
from typing import Any

from common import modes, processes
from common.config import check_choice
from common.errors import InputError
from text.config import TextConfig, check_config, make_config

USED = {
    "train": {"workdir", "resume", "together", *processes.FLAGS},
    "eval": {"run", "format"},
    "predict": {"run", "input", "format", "nbest"},
    "describe": {"workdir"},
}
OF_A_RUN = {
    "eval": {
        "test_file",
        "data_dir",
        "columns",
        "merge_repeated",
        "devices",
        "decode",
        "constrained",
    },
    "predict": {"columns", "devices", "decode", "constrained"},
}
FORMATS = {"eval": ("text", "jsonl"), "predict": ("text", "jsonl", "xml", "html")}


def run(launcher: dict[str, Any], settings: dict[str, Any], command: str) -> None:
    """Do what the flags ask for.

    Args:
        launcher: values of the launcher's own flags.
        settings: the configuration flags that were given, by name.
        command: what was typed.
    """
    mode = launcher["mode"]
    modes.check_flags(launcher, settings, used=USED, of_a_run=OF_A_RUN)
    if mode == "train":
        _train(launcher, settings, command)
    elif mode == "describe":
        from text.architecture import show

        show(make_config(settings), launcher["workdir"])
    else:
        form = check_choice("--format", launcher["format"] or "text", FORMATS[mode])
        _use(mode, launcher, settings, form)


def _use(mode: str, launcher: dict[str, Any], settings: dict[str, Any], form: str) -> None:
    runs = [Path(name) for name in launcher["run"]]
    if mode == "eval":
        from text.evaluate import evaluate

        evaluate(runs, {"devices": 0} | settings, as_json=form == "jsonl")
        return
    from text.predict import predict

    if not launcher["input"]:
        raise InputError("--mode=predict needs --input=SENTENCE, a file, or - for standard input")
    predict(
        runs,
        launcher["input"],
        nbest=launcher["nbest"],
        form=form,
        changes={"devices": 0} | settings,
    )


def _train(launcher: dict[str, Any], settings: dict[str, Any], command: str) -> None:
    from text.train import begin

    configs = (TextConfig, make_config, check_config)
    modes.train(launcher, settings, command, configs=configs, begin=begin)

"""Collects finished studies into docs/results: their pages, figures and an index of the answers.

    python -m common.study_results runs docs/results

takes every `study-NAME-cpu` folder of the first into `docs/results/NAME`; no number is typed.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from common.config import read_json

FILES = ("study.md", "study.csv", "bars.png", "curves.png")
HEAD = """\
# Results of the studies

Written by `python -m common.study_results` from finished studies at `--budget=cpu`; do not edit.
Each page has the figures, the table and the commands. Budgets and methods are explained in the
[README](../../README.md#studies).
"""
TITLES = {"cifar": "Images: CIFAR-10", "aspect": "Text: SemEval"}


def collect(runs: Path, target: Path) -> list[str]:
    """Copy the finished studies of `runs` into `target` and write its README.md.

    Studies that were collected before, and are not in `runs` any more, stay.

    Args:
        runs: where `--study` wrote, by default `runs`.
        target: a folder, such as docs/results.

    Returns:
        The names of all studies in `target`.
    """
    for folder in sorted(runs.glob("study-*-cpu")):
        if (folder / "study.md").exists():
            note = read_json(folder / "study.json")
            kept = target / note["study"]
            kept.mkdir(parents=True, exist_ok=True)
            for name in (*FILES, "study.json"):
                shutil.copyfile(folder / name, kept / name)
    found = [read_json(path) for path in sorted(target.glob("*/study.json"))]
    (target / "README.md").write_text(index(found), encoding="utf-8")
    return [note["study"] for note in found]


def index(studies: list[dict[str, Any]]) -> str:
    """The questions and answers of studies, each as study.json has it, in Markdown."""
    parts = [HEAD]
    for task, title in TITLES.items():
        parts.append(f"## {title}\n")
        for note in studies:
            if note["task"] == task:
                name = note["study"]
                parts.append(
                    f"**[{name}]({name}/study.md)** {note['question']}  \n{note['answer']}\n"
                )
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="the folder with the study-NAME-cpu folders")
    parser.add_argument("target", type=Path, help="such as docs/results")
    arguments = parser.parse_args()
    print("\n".join(collect(arguments.runs, arguments.target)))


if __name__ == "__main__":
    main()

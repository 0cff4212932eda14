"""Collects finished studies into docs/results: their pages, figures and an index of the answers.

    python -m common.study_results runs docs/results README.md

takes every `study-NAME-cpu` folder of the first into `docs/results/NAME`, and writes the table of
what the reports said and what was measured into the index and, between its two marks, into
README.md; no number is typed.
"""

import argparse
import csv
import re
import shutil
from pathlib import Path
from typing import Any

from common.config import read_json
from common.errors import InputError

FILES = ("study.md", "study.csv", "bars.png", "curves.png")
NOTED = {"study", "task", "question", "answer"}  # in study.json
HEAD = """\
# Results of the studies

Written by `python -m common.study_results` from finished studies at `--budget=cpu`; do not edit.
Each page has the figures, the table and the commands. Budgets and methods are explained in the
[README](../../README.md#studies).
"""
SIZES = """\
Images and report A's tagger are trained at a fraction of the reports' size, which each page says
first: the order is to be compared, not the numbers. The baseline is the arm without a difference.
"""
BEGIN, END = "<!-- table of common.study_results -->", "<!-- end of the table -->"
TITLES = {"cifar": "Images: CIFAR-10", "aspect": "Text: SemEval"}


def collect(runs: Path, target: Path, readme: Path | None = None) -> list[str]:
    """Copy the finished studies of `runs` into `target` and write its README.md.

    Studies that were collected before, and are not in `runs` any more, stay.

    Args:
        runs: where `--study` wrote, by default `runs`.
        target: a folder, such as docs/results.
        readme: a file that shall have the table between BEGIN and END.

    Returns:
        The names of all studies in `target`.

    Raises:
        InputError: a study.json is damaged, or `readme` has not the two marks.
    """
    for folder in sorted(runs.glob("study-*-cpu")):
        if (folder / "study.md").exists():
            kept = target / _read_note(folder / "study.json")["study"]
            kept.mkdir(parents=True, exist_ok=True)
            for name in (*FILES, "study.json"):
                shutil.copyfile(folder / name, kept / name)
    found = [_read_note(path) for path in sorted(target.glob("*/study.json"))]
    table = beside_reports(target, [note["study"] for note in found])
    (target / "README.md").write_text(index(found, table), encoding="utf-8")
    if readme is not None:
        text = readme.read_text(encoding="utf-8")
        parts = re.split(f"(?<={BEGIN}\n).*(?={END})", text, flags=re.DOTALL)
        if len(parts) != 2:
            raise InputError(f"{readme} has not the lines {BEGIN} and {END}: add them")
        here = table.replace("](", f"]({target.as_posix()}/")
        readme.write_text(f"{parts[0]}{here}{parts[1]}", encoding="utf-8")
    return [note["study"] for note in found]


def _read_note(path: Path) -> dict[str, Any]:
    note = read_json(path)
    if not NOTED <= set(note):
        raise InputError(f"{path} is damaged: run the study again")
    return note


def beside_reports(target: Path, names: list[str]) -> str:
    """A row for each arm that has a reported number, of the studies in `target`, in Markdown."""
    titles = ["study", "arm", "score", "reported", "measured", "less the baseline, 95 % over seeds"]
    rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name in names:
        with open(target / name / "study.csv", newline="", encoding="utf-8") as file:
            arms = [row for row in csv.DictReader(file) if row["reported"]]
        for arm in arms:
            link = f"[{name}]({name}/study.md)" if arm is arms[0] else ""
            deviation = f" ± {float(arm['deviation']):.4f}" if arm["deviation"] else ""
            cells = [
                link,
                arm["arm"],
                re.sub("[/_]", " ", arm["metric"]),
                f"{float(arm['reported']):.3g}",
                f"{float(arm['mean']):.4f}{deviation}",
                _difference(arm),
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _difference(arm: dict[str, str]) -> str:
    if not arm["difference"]:
        return ""
    ends = [arm["difference_low"], arm["difference_high"]]
    interval = f" ({' to '.join(f'{float(end):+.4f}' for end in ends)})" if all(ends) else ""
    return f"{float(arm['difference']):+.4f}{interval}"


def index(studies: list[dict[str, Any]], table: str) -> str:
    """The questions and answers of studies, each as study.json has it, in Markdown."""
    parts = [HEAD, f"## Beside the reports\n\n{SIZES}\n{table}"]
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
    parser.add_argument("readme", type=Path, nargs="?", help="what shall have the table, too")
    arguments = parser.parse_args()
    try:
        print("\n".join(collect(arguments.runs, arguments.target, arguments.readme)))
    except (InputError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()

"""What a study writes: study.csv, study.md, curves.png, bars.png and study.html."""

import csv
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from common.plots import save_figure
from common.study import Run, Study, Task, to_flags
from common.study_answer import answer, format_interval, format_p, format_score
from common.study_plots import bars_figure, curves_figure
from common.study_progress import format_seconds
from common.study_table import Result, Row, make_table


@dataclass(frozen=True)
class Report:
    """All that the files of a study tell.

    Attributes:
        study: the question.
        task: what it is about.
        arms: the settings of the arms that were tried.
        budget: the name, "" for a study of a file.
        notes: what differs from the report at this size, and what the reader should know.
        results: of the finished runs.
        rows: the table.
        failures: by run, why it failed.
        command: what was typed.
        full_command: what runs the study at the report's own size, "" if that was typed.
    """

    study: Study
    task: Task
    arms: Mapping[str, Mapping[str, Any]]
    budget: str
    notes: tuple[str, ...]
    results: Sequence[Result]
    rows: Sequence[Row]
    failures: Mapping[Run, str]
    command: str
    full_command: str = ""

    @property
    def answer(self) -> str:
        told = [answer(self.study, self.rows, self.task.metrics)]
        there = [row.arm for row in self.rows]
        if absent := [arm for arm in self.arms if arm not in there]:
            told.append(f"Without a result: {', '.join(absent)}.")
        if self.study.baseline in absent:
            told.append(f"{self.study.baseline} is the baseline, so that nothing is compared.")
        counted = {(row.arm, seed) for row in self.rows for seed in row.scores}
        found = [(result.arm, result.seed) for result in self.results]
        if lacking := [f"{arm}, seed {seed}" for arm, seed in found if (arm, seed) not in counted]:
            told.append(f"No {self.study.metric} in the summary of {'; '.join(lacking)}.")
        if failed := len(self.failures):
            told.append(f"{failed} {'run' if failed == 1 else 'runs'} failed.")
        return " ".join(told)

    @property
    def method(self) -> str:
        """What the numbers of the table are, as far as there are such."""
        found = [row.comparison for row in self.rows if row.comparison]
        compared = DIFFERENCES if found else ""
        sampled = BOOTSTRAP if any(each.bootstrap for each in found) else ""
        return SCORES + compared + sampled + (CONFIDENCE if found else "") + TIMES

    @property
    def setting(self) -> str:
        """Task, size, seeds and machine in a line."""
        parts = [self.study.source, f"task {self.task.name}"]
        parts += [f"budget {self.budget}"] if self.budget else []
        counts = sorted({len(row.scores) for row in self.rows})
        seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        parts.append(f"{seeds} {'seed' if counts == [1] else 'seeds'}")
        parts += sorted({result.machine for result in self.results})
        return "; ".join(part for part in parts if part)

    def differences(self, arm: str) -> dict[str, Any]:
        """The settings in which an arm is not as all arms are."""
        shared = self.shared
        return {name: v for name, v in self.arms[arm].items() if name not in shared}

    @property
    def shared(self) -> dict[str, Any]:
        """The settings that all arms have in common."""
        first, *others = self.arms.values()
        return {
            name: value
            for name, value in first.items()
            if all(name in other and other[name] == value for other in others)
        }

    def arm_command(self, arm: str) -> str:
        """What trains an arm by itself."""
        flags = [f"--task={self.task.name}", *to_flags(self.arms[arm]), "--seed=0"]
        return shlex.join(["python", "launch.py", *flags])


SCORES = "Scores are mean ± standard deviation over seeds."
DIFFERENCES = (
    " The difference is that of an arm to the baseline, seed by seed; its interval and p are those "
    "of Student's paired t."
)
BOOTSTRAP = " The last interval is a paired bootstrap over the test examples."
CONFIDENCE = " Intervals are at 95 %, and not corrected for the number of comparisons."
TIMES = (
    " A final score is that of the last epoch, the others are those of the selected one. Time is "
    "that of a run's training steps."
)


def make_report(
    study: Study,
    task: Task,
    arms: Mapping[str, Mapping[str, Any]],
    *,
    budget: str,
    notes: Sequence[str],
    results: Sequence[Result],
    failures: Mapping[Run, str],
    command: str,
    full_command: str = "",
) -> Report:
    """Args as of `Report`, whose table this makes."""
    rows = make_table(study, results)
    notes = tuple(note for note in notes if note)
    return Report(study, task, arms, budget, notes, results, rows, failures, command, full_command)


def table_cells(report: Report) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the table, as text; columns that nothing fills are left out."""
    study, words = report.study, report.task.metrics
    header = [
        "arm", words[study.metric], f"difference to {study.baseline}", "95 % over seeds", "p",
        "95 % over test examples", "reported", *(words[name] for name in study.shown), "seeds",
        "best epoch", "time", "parameters",
    ]  # fmt: skip
    cells = []
    for row in report.rows:
        found = row.comparison
        cells.append([
            row.arm,
            format_score(row),
            f"{found.difference:+.4f}" if found else "",
            format_interval(found.interval) if found else "",
            format_p(found.p).removeprefix("p = ").removeprefix("p ") if found else "",
            format_interval(found.bootstrap) if found else "",
            "" if row.reported is None else f"{row.reported:.4g}",
            *("" if isnan(value) else f"{value:.4f}" for value in row.shown.values()),
            str(len(row.scores)),
            f"{row.best_epoch:.3g}",
            format_seconds(row.seconds),
            f"{row.parameters:,}",
        ])  # fmt: skip
    filled = [i for i in range(len(header)) if any(row[i] for row in cells)]
    return [header[i] for i in filled], [[row[i] for i in filled] for row in cells]


def write_csv(path: Path, report: Report) -> None:
    """A line per arm, the numbers unrounded."""
    study = report.study
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([
            "study", "arm", "metric", "mean", "deviation", "n", *study.shown, "best_epoch",
            "seconds", "parameters", "reported", "difference", "difference_low",
            "difference_high", "p", "bootstrap_low", "bootstrap_high", "scores",
        ])  # fmt: skip
        for row in report.rows:
            found = row.comparison
            compared = (found.interval, found.bootstrap) if found else (None, None)
            interval, bootstrap = (pair or (None, None) for pair in compared)
            scores = " ".join(f"{seed}:{score!r}" for seed, score in row.scores.items())
            writer.writerow([
                study.name, row.arm, study.metric, row.mean, row.deviation, len(row.scores),
                *row.shown.values(), row.best_epoch, row.seconds, row.parameters, row.reported,
                found.difference if found else None, *interval, found.p if found else None,
                *bootstrap, scores,
            ])  # fmt: skip


def write_markdown(path: Path, report: Report) -> None:
    """The question, the answer, the figures, the table, the arms and their commands."""
    header, cells = table_cells(report)
    lines = [
        f"# {_plain(report.study.name)}: {_plain(report.study.question)}", "",
        _plain(report.answer), "", f"*{_plain(report.setting)}*", "",
        *(line for note in report.notes for line in (_plain(note), "")),
        _line(header), "|" + "---|" * len(header), *(_line(row) for row in cells), "",
        report.method, "",
        "![scores of the arms](bars.png)", "", "![curves over the epochs](curves.png)", "",
    ]  # fmt: skip
    if report.failures:
        lines += ["## Failed runs", ""]
        failed = report.failures.items()
        lines += [f"- {_plain(run.title)}: {_plain(reason)}" for run, reason in failed] + [""]
    lines += ["## Repeat", "", f"    {report.command}", ""]
    if report.full_command:
        lines += ["at the report's own size:", "", f"    {report.full_command}", ""]
    lines += ["or an arm by itself:", ""]
    for arm in report.arms:
        lines += [f"- {_plain(arm)}", "", f"      {report.arm_command(arm)}", ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    """A text in a line of Markdown, in which no part of it is a tag."""
    return " ".join(text.split()).replace("<", "&lt;")


def write_figures(folder: Path, report: Report) -> None:
    """curves.png and bars.png."""
    words = report.task.metrics[report.study.metric]
    save_figure(bars_figure(report.study, report.rows, words), folder / "bars.png")
    figure = curves_figure(report.study, report.results, report.task)
    save_figure(figure, folder / "curves.png")

"""`launch.py --study=...`: list, check, run, compare, write."""

import dataclasses
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import config as configs
from common import run_folder
from common.config import check_choice
from common.errors import FailedRunsError, InputError
from common.modes import was_given
from common.run_folder import FREE_ON_RESUME
from common.study import (
    BUDGETS,
    MAX_SEEDS,
    PATHS,
    Budget,
    Run,
    Study,
    Task,
    check_given,
    check_study,
    list_studies,
    make_runs,
    resolve_arms,
    slug,
    to_flags,
)
from common.study_file import read_study
from common.study_page import write_page
from common.study_progress import StudyProgress
from common.study_report import Report, make_report, write_csv, write_figures, write_markdown
from common.study_runs import Runner, group_runs, light_jobs, locked
from common.study_table import read_result
from common.writer import say

# The launcher's flags that go with --study.
USED = {"study", "seeds", "budget", "jobs", "vmap", "vectors", "workdir"}
MAX_JOBS = 1000
# What says which data are meant; the other settings beside --study say how small it is to be.
OF_DATA = {*PATHS, "dataset", "columns", "merge_repeated"}


def run_study(
    launcher: Mapping[str, Any],
    settings: Mapping[str, Any],
    command: str,
    *,
    program: Sequence[str],
    tasks: Mapping[str, Callable[[], tuple[Task, Sequence[Study]]]],
) -> None:
    """Do what --study asks for.

    Args:
        launcher: values of the launcher's own flags; None is not given.
        settings: the configuration flags that were given, by name; they hold for every arm.
        command: what was typed.
        program: what starts launch.py.
        tasks: by name, what gives a task and its studies.

    Raises:
        InputError: a mistake, before anything is trained.
        FailedRunsError: some runs failed; what the others gave is written.
        StoppedBySignal: after Ctrl-C or SIGTERM.
    """
    _check_launcher(launcher, settings)
    if launcher["study"] == "list":
        say(list_studies([study for find in tasks.values() for study in find()[1]]))
        return
    study, task = _find_study(launcher["study"], tasks)
    budget, name = _find_budget(study, launcher["budget"])
    if not budget.comparable:
        study = dataclasses.replace(study, reported={})
    _check_settings(study, task, budget, name, settings)
    stem = "-".join(filter(None, ("study", slug(study.name), name)))
    folder = Path(launcher["workdir"] or Path("runs") / stem)
    arms, runs = _plan_runs(study, task, budget, launcher, settings, folder)
    _check_folder(folder, study, arms)
    left_out = [arm for arm in study.arms if arm not in arms and arm not in budget.without]
    missing = f"Left out without --vectors=FILE: {', '.join(left_out)}." if left_out else ""
    if missing:
        say(missing)
    with locked(folder) as lock:
        _note_study(folder, study, arms)
        run_folder.note_command(folder, command)
        failures = _train(study, task, runs, folder, launcher, program, lock)
        report = make_report(
            study,
            task,
            arms,
            budget=name,
            notes=(budget.note, study.note, missing),
            results=[read_result(run, task, study.metric) for run in runs if run.finished],
            failures=failures,
            command=command,
            full_command=_full_command(study, name, launcher, settings),
        )
        if report.rows:
            _write(folder, report)
            _note_study(folder, study, arms, answer=report.answer)
        _check_end(report, runs)
        shutil.rmtree(folder / "compiled", ignore_errors=True)  # large, and of no more use


def _plan_runs(
    study: Study,
    task: Task,
    budget: Budget,
    launcher: Mapping[str, Any],
    settings: Mapping[str, Any],
    folder: Path,
) -> tuple[dict[str, dict[str, Any]], list[Run]]:
    """Every arm's settings, and the runs; InputError for what cannot be trained or compared."""
    try:
        arms = resolve_arms(study, budget, settings, launcher["vectors"])
        check_given(resolve_arms(study, budget, {}, launcher["vectors"]), task, settings)
        return arms, make_runs(arms, task, launcher["seeds"] or study.seeds, folder)
    except InputError as error:
        raise InputError(f"--study={launcher['study']}: {error}") from None


def _full_command(
    study: Study, budget: str, launcher: Mapping[str, Any], settings: Mapping[str, Any]
) -> str:
    """What runs a study at its report's size; "" where that is done, or there is none."""
    full = study.budgets.get("full")
    if budget == "full" or full is None:
        return ""
    data = {name: value for name, value in settings.items() if name in OF_DATA}
    if full.needs_data and not data:
        data["data_dir"] = "FOLDER"
    chosen = {"study": study.name, "budget": "full", "vectors": launcher["vectors"], **data}
    return shlex.join(["python", "launch.py", *to_flags(chosen)])


def _write(folder: Path, report: Report) -> None:
    """Every file of a study, and the answer for the person."""
    write_csv(folder / "study.csv", report)
    write_figures(folder, report)
    write_markdown(folder / "study.md", report)
    write_page(folder / "study.html", report)
    say(f"\n{report.answer}\n\neverything: {folder / 'study.html'}")


def _check_end(report: Report, runs: Sequence[Run]) -> None:
    """Raise an error for failed runs, or where none has the metric."""
    failures = report.failures
    if not report.rows and not failures:
        raise InputError(f"no run has {report.study.metric}: it needs --val_fraction above 0")
    if failures:
        run, reason = next(iter(failures.items()))
        raise FailedRunsError(
            f"{len(failures)} of {len(runs)} runs failed, first {run.title}: {reason} "
            f"({run.log}); the same command tries them again, and anew where a run has no folder"
        )


def _check_launcher(launcher: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise an InputError for a flag that does not go with --study."""
    for name, value in launcher.items():
        if was_given(value) and name not in USED and not (name == "mode" and value == "train"):
            remedy = {
                "task": "it is the study's own",
                "resume": "a study always goes on where it was",
            }.get(name, "leave it out")
            raise InputError(f"--{name} does not go with --study: {remedy}")
    if launcher["study"] == "list":
        extra = [n for n in (*launcher, *settings) if n not in ("study", "mode")]
        given = [name for name in extra if launcher.get(name) or name in settings]
        if given:
            raise InputError(f"--{given[0]} does not go with --study=list: leave it out")
    for name, most in (("seeds", MAX_SEEDS), ("jobs", MAX_JOBS), ("vmap", MAX_JOBS)):
        if launcher[name] is not None:
            configs.check_range(f"--{name}", launcher[name], 1, most)


def _find_study(
    name: str, tasks: Mapping[str, Callable[[], tuple[Task, Sequence[Study]]]]
) -> tuple[Study, Task]:
    """A study by its name or from its file."""
    if name.endswith((".yaml", ".yml")):
        study = read_study(Path(name), lambda task: tasks[task]()[0], tuple(tasks))
        return study, tasks[study.task]()[0]
    known: dict[str, tuple[Study, Task]] = {}
    for find in tasks.values():
        task, studies = find()
        known |= {study.name: (study, task) for study in studies}
    if name not in known:
        choices = configs.suggest(name, list(known))
        raise InputError(f"--study={name} is unknown{choices}; or list, or a .yaml file")
    study, task = known[name]
    check_study(study, task)
    return study, task


def _find_budget(study: Study, given: str | None) -> tuple[Budget, str]:
    """The budget and its name."""
    if not study.budgets:
        if given:
            raise InputError("--budget does not go with a study of a file: set its base instead")
        return Budget(), ""
    name = check_choice("--budget", given or BUDGETS[0], study.budgets)
    return study.budgets[name], name


def _check_settings(
    study: Study, task: Task, budget: Budget, name: str, settings: Mapping[str, Any]
) -> None:
    """Raise an InputError for given settings that the study cannot have, or lacks."""
    if "seed" in settings:
        raise InputError("--seed does not go with --study: --seeds says how many, from 0")
    known = {field.name for field in dataclasses.fields(task.config)}
    for setting in settings:
        if setting not in known:
            raise InputError(f"--{setting} does not belong to --task={task.name}: leave it out")
    if budget.needs_data and not {"data_dir", "train_file"} & set(settings):
        raise InputError(
            f"--study={study.name} --budget={name} needs --data_dir=FOLDER with a train and a test "
            "file; --budget=quick needs none"
        )


def _check_folder(folder: Path, study: Study, arms: Mapping[str, Mapping[str, Any]]) -> None:
    """InputError if the folder is not new and not of this very study."""
    path = folder / "study.json"
    if not path.exists():
        if folder.is_dir() and any(entry.name != "lock" for entry in folder.iterdir()):
            raise InputError(f"--workdir={folder} holds something else: choose another folder")
        return
    saved = configs.read_json(path)
    if not isinstance(saved.get("arms"), dict):
        raise InputError(f"{path} is not as a study writes it: restore it from a copy")
    if saved.get("study") != study.name:
        raise InputError(f"{folder} holds the study {saved.get('study')}: choose another --workdir")
    for arm in {**saved["arms"], **arms}:
        old, new = saved["arms"].get(arm), arms.get(arm)
        if old is None or new is None:
            raise InputError(
                f"{folder} holds this study {'without' if old is None else 'with'} the arm "
                f"'{arm}', {'which is' if old is None else 'but it is not'} among its arms now: "
                "choose another --workdir"
            )
        for name in {**old, **new}:
            if old.get(name) != new.get(name) and name not in FREE_ON_RESUME:
                raise InputError(
                    f"{folder} holds a study with {name} {old.get(name)} in the arm '{arm}', not "
                    f"{new.get(name)}: choose another --workdir"
                )


def _note_study(
    folder: Path, study: Study, arms: Mapping[str, Mapping[str, Any]], **answer: str
) -> None:
    """Write what the study is, and the answer when there is one."""
    content = {"study": study.name, "task": study.task, "question": study.question, "arms": arms}
    configs.write_json(folder / "study.json", content | answer)


def _train(
    study: Study,
    task: Task,
    runs: Sequence[Run],
    folder: Path,
    launcher: Mapping[str, Any],
    program: Sequence[str],
    lock: int,
) -> dict[Run, str]:
    """Do the runs that are not finished; the reasons of those that failed."""
    jobs, together = launcher["jobs"], launcher["vmap"] or 1
    light = jobs is None and together == 1 and len(runs) > 1 and all(run.light for run in runs)
    jobs = light_jobs() if light else jobs or 1
    programs = len(group_runs(runs, together))
    progress = StudyProgress(
        runs, study.metric, task.metrics[study.metric], jobs * len(runs) // programs
    )
    arms = len({run.arm for run in runs})
    finished = f", {progress.done} of them finished before" if progress.done else ""
    say(f"{study.name}: {study.question}")
    seeds = len(runs) // arms
    say(
        f"{len(runs)} runs ({arms} {'arm' if arms == 1 else 'arms'}, {seeds} "
        f"{'seed' if seeds == 1 else 'seeds'}){finished}; in {folder}"
    )
    if light and progress.done < len(runs):
        say(f"they are light: up to {jobs} train at a time (--jobs=1: one by one)")
    if together > 1 and progress.done < len(runs):
        alike = "alike but for seed, rate, decay or smoothing"
        say(f"as {programs} programs, each of up to {together} runs {alike}")
    own = {run.folder for run in runs}
    others = [p for p in folder.glob("runs/*/seed*/summary.json") if p.parent not in own]
    if others:
        remedy = "of further seeds are left out: a larger --seeds takes them in"
        say(f"{len(others)} finished runs {remedy}")
    runner = Runner(program, task.name, folder, jobs, lock, compile_once=light)
    runner.run_all(runs, progress, together=together)
    return runner.failures

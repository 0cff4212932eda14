"""A study is data: a question, its arms, the seeds, and what each budget changes.

vision/studies.py and text/studies.py define the studies that the project knows,
common/study_file.py reads somebody's own. common/study_runs.py trains the arms,
common/study_table.py compares them, common/study_page.py writes what comes out.
"""

import re
import zipfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.config import check_choice, read_json
from common.errors import InputError

BUDGETS = ("quick", "cpu", "full")
MAX_SEEDS = 1000
# In a setting of an arm, the word vectors that --vectors names.
VECTORS = "{vectors}"

PATHS = ("data_dir", "train_file", "val_file", "test_file")

# Of a run's summary, what every study reads.
NEEDED = ("seconds", "device", "precision", "jax")

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Budget:
    """What a study may cost.

    Attributes:
        settings: of all arms, below what an arm says itself.
        arms: of single arms, above what they say themselves.
        without: arms that cannot be had at this size.
        note: what is smaller than in the report, for the first line of the table.
        needs_data: whether a corpus must be given, lest the embedded one be taken unnoticed.
        comparable: whether the scores may be set beside the report's, being of the same data.
    """

    settings: Settings = field(default_factory=dict)
    arms: Mapping[str, Settings] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    note: str = ""
    needs_data: bool = False
    comparable: bool = True


@dataclass(frozen=True)
class Study:
    """A comparison.

    Attributes:
        name: as --study takes it; of a report's experiment its id.
        question: one sentence.
        task: of --task.
        arms: by name, the settings in which it differs from `base`; their names are flags.
        baseline: the arm that the others are compared with.
        metric: the name of the score that is compared, one of the task's.
        base: settings of all arms.
        budgets: by name; a study of a file has none.
        seeds: how many, from 0.
        reported: by arm, the number of the report.
        source: where `reported` stands, or what made us ask.
        shown: further metrics for the table.
        note: what the reader of the answer should know.
    """

    name: str
    question: str
    task: str
    arms: Mapping[str, Settings]
    baseline: str
    metric: str
    base: Settings = field(default_factory=dict)
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    seeds: int = 3
    reported: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    shown: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Task:
    """What a study needs to know of a task.

    Attributes:
        name: of --task.
        config: its dataclass.
        check: settings -> configuration; InputError for what cannot be trained.
        metrics: in words, by the name in summary.json; "final/NAME" is NAME in the last epoch,
            and "gap/NAME" what validation is above training there.
        curves: (NAME, words) of the metrics drawn over the epochs.
        light: configuration -> whether a run leaves a core idle and takes little memory, so that
            several train together by default.
        program: configuration -> what is the same for runs that can be one program under `vmap`;
            None if none can.
        derive: further metrics from the counts of a run's test_counts.npz, by name.
    """

    name: str
    config: type
    check: Callable[[dict[str, Any]], Any]
    metrics: Mapping[str, str]
    curves: tuple[tuple[str, str], ...]
    light: Callable[[Any], bool] = lambda config: False
    program: Callable[[Any], Hashable | None] = lambda config: None
    derive: Callable[[Mapping[str, np.ndarray]], dict[str, float]] = lambda counts: {}


@dataclass(frozen=True, eq=False)
class Run:
    """One arm with one seed: a run folder, and beside it the log of the process.

    `light` and `program` as its task tells (see `Task`).
    """

    arm: str
    seed: int
    settings: Settings
    epochs: int
    folder: Path
    light: bool = False
    program: Hashable = None

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    @property
    def finished(self) -> bool:
        """Whether the run has its summary, which is written last, and both files are whole.

        Else the run is to be resumed, which writes them again without training.
        """
        try:
            whole = set(NEEDED) <= set(self.read_summary())
        except InputError:
            return False
        return whole and zipfile.is_zipfile(self.folder / "test_counts.npz")

    def read_summary(self) -> dict[str, Any]:
        """What a finished run found."""
        return read_json(self.folder / "summary.json")

    @property
    def title(self) -> str:
        return f"{self.arm}, seed {self.seed}"


def slug(name: str) -> str:
    """A name as a folder."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "arm"


def check_study(study: Study, task: Task) -> None:
    """Raise an InputError for names that do not fit together; the settings are not looked at."""
    if len(study.arms) < 1:
        raise InputError(f"the study {study.name} has no arm")
    check_choice("baseline", study.baseline, study.arms)
    for metric in (study.metric, *study.shown):
        check_choice("metric", metric, task.metrics)
    for arm in study.reported:
        check_choice("reported", arm, study.arms)
    folders = [slug(arm).lower() for arm in study.arms]
    for arm, folder in zip(study.arms, folders, strict=True):
        if not arm.strip():
            raise InputError("an arm has no name: give it one")
        if folders.count(folder) > 1:
            raise InputError(f"the arm '{arm}' has the folder of another: name it differently")


def resolve_arms(
    study: Study, budget: Budget, given: Settings, vectors: str | None
) -> dict[str, dict[str, Any]]:
    """The settings of every arm that can be trained.

    What wins: the budget's for the arm, the arm's, what was given beside --study, the
    budget's for all, the study's base; and below them all a named --config.

    Args:
        study: the study.
        budget: its budget, or an empty one.
        given: settings given beside --study.
        vectors: the files for arms that need some, with commas; without they are left out.

    Raises:
        InputError: a given setting is one that the arms set themselves; vectors are no files, not
            used, or needed by the baseline.
    """
    arms = {}
    wanted = any(VECTORS in str(v) for arm in study.arms.values() for v in arm.values())
    if vectors is not None and not wanted:
        raise InputError(f"--vectors is not used by the study {study.name}: leave it out")
    for file in vectors.split(",") if vectors is not None else ():
        if not Path(file.strip()).expanduser().is_file():
            raise InputError(f"--vectors={file} is no file: give one or several, FILE,FILE")
    for name, settings in study.arms.items():
        own = {**settings, **budget.arms.get(name, {})}
        for flag in given:
            if flag in own:
                raise InputError(f"--{flag} is set by the arm '{name}' of the study: leave it out")
        merged = {**study.base, **budget.settings, **given, **own}
        needs_vectors = any(VECTORS in str(value) for value in merged.values())
        if name in budget.without or (needs_vectors and vectors is None):
            continue
        arms[name] = {
            flag: value.replace(VECTORS, str(vectors)) if isinstance(value, str) else value
            for flag, value in merged.items()
        }
    if study.baseline not in arms:
        raise InputError(f"the baseline arm '{study.baseline}' needs --vectors=FILE")
    return arms


def check_given(arms: Mapping[str, dict[str, Any]], task: Task, given: Settings) -> None:
    """InputError for a setting beside --study in which the arms differ by their --config.

    Args:
        arms: their settings, without the given ones.
        task: of the study.
        given: settings given beside --study.
    """
    try:
        configs = {arm: _check_arm(arm, settings, task) for arm, settings in arms.items()}
    except InputError:  # it may need what is given, such as where the data are
        return
    for name in given:
        values = {arm: getattr(config, name) for arm, config in configs.items()}
        (one, first), *others = values.items()
        for other, value in others:
            if value != first:
                raise InputError(
                    f"--{name} is {first} in the arm '{one}' and {value} in '{other}': leave it "
                    "out, since it would change what is compared"
                )


def _check_arm(arm: str, settings: dict[str, Any], task: Task) -> Any:
    """The configuration of an arm; InputError if it cannot be trained."""
    try:
        return task.check(dict(settings))
    except InputError as error:
        raise InputError(f"arm '{arm}': {error}") from None


def make_runs(
    arms: Mapping[str, dict[str, Any]], task: Task, seeds: int, folder: Path
) -> list[Run]:
    """The runs of a study, seed by seed, so that one cut short still compares all arms.

    Raises InputError for an arm that cannot be trained, or that is another one again.
    """
    configs: dict[str, Any] = {}
    for arm, settings in arms.items():
        config = _check_arm(arm, settings, task)
        for name in PATHS:
            if settings.get(name) and not Path(settings[name]).expanduser().exists():
                raise InputError(f"arm '{arm}': --{name}={settings[name]} does not exist")
        if twins := [other for other, known in configs.items() if known == config]:
            raise InputError(f"the arms '{twins[0]}' and '{arm}' are the same: change one")
        configs[arm] = config
    return [
        Run(
            arm,
            seed,
            settings | {"seed": seed},
            configs[arm].epochs,
            run_folder(folder, arm, seed),
            light=task.light(configs[arm]),
            program=task.program(configs[arm]),
        )
        for seed in range(seeds)
        for arm, settings in arms.items()
    ]


def run_folder(folder: Path, arm: str, seed: int) -> Path:
    """Where a study's run of an arm with a seed is."""
    return folder / "runs" / slug(arm) / f"seed{seed}"


def to_flags(settings: Settings) -> list[str]:
    """Settings as they are typed; None is "not given"."""
    return [
        f"--{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in settings.items()
        if value is not None
    ]


def list_studies(studies: Sequence[Study]) -> str:
    """A line or two for each study: name, question, arms."""
    lines = []
    for study in studies:
        lines.append(f"{study.name}  ({study.task}, {study.source})")
        lines.append(f"    {study.question}")
        lines.append(f"    {'; '.join(study.arms)}")
    return "\n".join(lines)

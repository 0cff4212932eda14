"""Runs of a study: done once each, whatever fails, is stopped or is killed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common import study_progress, study_runs
from common.errors import FailedRunsError, InputError, StoppedBySignal
from common.study import Budget, make_runs
from common.study_command import run_study
from common.study_progress import StudyProgress
from tests.common.study_cases import FAKE_LAUNCH, STUDY, TASK

ROOT = Path(__file__).resolve().parents[2]
NOTHING = dict.fromkeys(
    ("task", "mode", "workdir", "resume", "run", "input", "format", "top", "nbest", "study",
     "seeds", "budget", "jobs", "vectors", "vmap", "together")
)  # fmt: skip
PROGRAM = (sys.executable, "-S", str(FAKE_LAUNCH))


def call(folder, toy=STUDY, settings=None, toy_task=TASK, **launcher):
    """`launch.py --study=toy-rates`, in this process."""
    flags = NOTHING | {"study": toy.name, "workdir": str(folder), "mode": "train"} | launcher
    tasks = {"toy": lambda: (toy_task, [toy])}
    run_study(flags, settings or {}, "python launch.py ...", program=PROGRAM, tasks=tasks)


def starts(folder):
    """How often each run was started."""
    return {
        str(path.parent.relative_to(folder / "runs")): len(path.read_text().splitlines())
        for path in folder.glob("runs/*/*/starts.txt")
    }


def with_arm(name, **settings):
    return dataclasses.replace(STUDY, arms={**STUDY.arms, name: settings})


def test_a_study_from_end_to_end_and_one_more_seed(tmp_path, capsys):
    call(tmp_path / "s")
    told = capsys.readouterr().out
    assert "6 runs (3 arms, 2 seeds)" in told and "[6/6] two | 2, seed 1: test accuracy" in told
    assert " left\n" in told
    files = {"study.md", "study.csv", "study.html", "curves.png", "bars.png", "study.json", "runs"}
    assert {path.name for path in (tmp_path / "s").iterdir()} == files | {"lock", "command.txt"}
    assert "two epochs" in (tmp_path / "s" / "study.md").read_text()

    call(tmp_path / "s", seeds=3)
    assert "9 runs (3 arms, 3 seeds), 6 of them finished before" in capsys.readouterr().out
    assert set(starts(tmp_path / "s").values()) == {1} and len(starts(tmp_path / "s")) == 9


def test_runs_may_go_on_together(tmp_path):
    call(tmp_path / "s", jobs=3)
    assert set(starts(tmp_path / "s").values()) == {1} and len(starts(tmp_path / "s")) == 6


SEEDS_ALIKE = dataclasses.replace(TASK, program=lambda config: config)


def test_runs_of_one_program_share_a_process(tmp_path, capsys):
    call(tmp_path / "s", toy_task=SEEDS_ALIKE, seeds=5, vmap=3)
    assert (
        "as 6 programs, each of up to 3 runs alike but for seed, rate," in capsys.readouterr().out
    )
    assert set(starts(tmp_path / "s").values()) == {1} and len(starts(tmp_path / "s")) == 15
    for arm in (tmp_path / "s" / "runs").iterdir():
        commands = [(arm / f"seed{seed}" / "starts.txt").read_text() for seed in range(5)]
        assert commands[0] == commands[1] == commands[2] != commands[3] == commands[4]
        assert "--together=" in commands[0] and (arm / "seed3.log").read_text().count("a line") == 2
        assert (arm / "seed4.log").read_text().startswith("one program with ")
    call(tmp_path / "one", seeds=2)
    table, alone = ((tmp_path / name / "study.csv").read_text() for name in ("s", "one"))
    assert table.splitlines()[0] == alone.splitlines()[0]


def test_what_fails_of_several_runs_is_done_again_one_by_one(tmp_path, capsys):
    study = with_arm("crowded", label="crowded", rate=1)
    call(tmp_path / "s", study, toy_task=SEEDS_ALIKE, seeds=2, vmap=2)
    told = capsys.readouterr().out
    assert (
        "crowded, seed 0 did not end with the others (MemoryError: out of memory): now alone"
        in told
    )
    assert starts(tmp_path / "s")["crowded/seed0"] == 2 and "FAILED" not in told
    mistake = with_arm("never", label="mistake", rate=1)
    with pytest.raises(FailedRunsError, match="2 of 8 runs failed, first never, seed 0: --rate=9"):
        call(tmp_path / "t", mistake, toy_task=SEEDS_ALIKE, seeds=2, vmap=2)
    assert starts(tmp_path / "t")["never/seed0"] == 2
    assert not list((tmp_path / "t").rglob("*.together.json"))


def test_runs_are_grouped_by_their_program_in_their_order():
    runs = make_runs({"a": {}, "b": {"rate": 2.0}}, SEEDS_ALIKE, 3, Path("s"))
    titles = [[run.title for run in group] for group in study_runs.group_runs(runs, 2)]
    assert titles == [
        ["a, seed 0", "a, seed 1"], ["b, seed 0", "b, seed 1"], ["a, seed 2"], ["b, seed 2"]
    ]  # fmt: skip
    assert study_runs.group_runs(runs, 1) == [[run] for run in runs]
    nothing = make_runs({"a": {}}, TASK, 2, Path("s"))
    assert len(study_runs.group_runs(nothing, 2)) == 2


def test_light_runs_go_on_together_when_their_arm_has_compiled(tmp_path, capsys):
    light = dataclasses.replace(TASK, light=lambda config: True)
    call(tmp_path / "s", toy_task=light, seeds=3)
    assert "they are light: up to " in capsys.readouterr().out
    assert set(starts(tmp_path / "s").values()) == {1} and len(starts(tmp_path / "s")) == 9
    for arm in (tmp_path / "s" / "runs").iterdir():
        first, *others = sorted(path for path in arm.iterdir() if path.is_dir())
        compiled = (first / "metrics.jsonl").stat().st_mtime_ns
        begun = [(run / "starts.txt").stat().st_mtime_ns for run in others]
        assert len(begun) == 2 and min(begun) > compiled
    call(tmp_path / "one", toy_task=light, seeds=3, jobs=1)
    assert "they are light" not in capsys.readouterr().out


def test_a_damaged_run_folder_does_not_stop_the_other_seeds(tmp_path, capsys):
    call(tmp_path / "s", seeds=2)
    folder = tmp_path / "s" / "runs" / "half" / "seed0"
    (folder / "summary.json").unlink()
    (folder / "config.json").write_text("damaged")
    capsys.readouterr()
    with pytest.raises(FailedRunsError, match="1 of 9 runs failed, first half, seed 0"):
        call(tmp_path / "s", seeds=3)
    assert starts(tmp_path / "s")["half/seed2"] == 1 and "not tried" not in capsys.readouterr().out


def test_seeds_that_are_left_out_are_told(tmp_path, capsys):
    call(tmp_path / "s", seeds=3)
    call(tmp_path / "s", seeds=1)
    told = capsys.readouterr().out
    assert "6 finished runs of further seeds are left out: a larger --seeds takes them in" in told


def test_a_failed_arm_is_reported_and_the_rest_go_on(tmp_path, capsys):
    study = with_arm("crashed", label="crash")
    study = dataclasses.replace(study, arms={"wrong": {"label": "mistake"}, **study.arms})
    study = dataclasses.replace(
        study, arms={**study.arms, "shot": {"label": "killed"}}, base={"rate": 1.0}
    )
    with pytest.raises(FailedRunsError, match="6 of 12 runs failed, first wrong, seed 0: --rate=9"):
        call(tmp_path / "s", study)
    told = capsys.readouterr().out
    assert "crashed, seed 1 FAILED: MemoryError: out of memory" in told
    assert "shot, seed 0 FAILED: killed by SIGKILL" in told
    assert "wrong, seed 1 FAILED: not tried, since seed 0 failed by a mistake" in told
    made = starts(tmp_path / "s")
    assert "wrong/seed1" not in made and made["crashed/seed1"] == 1
    text = (tmp_path / "s" / "study.md").read_text()
    assert "6 runs failed." in text and "- wrong, seed 0: --rate=9 cannot be" in text
    assert "Failed runs" in (tmp_path / "s" / "study.html").read_text()

    with pytest.raises(FailedRunsError):  # tried again, and only they
        call(tmp_path / "s", study)
    again = starts(tmp_path / "s")
    assert again["half/seed0"] == 1 and again["crashed/seed1"] == 2


SLOW = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.common import study_cases
from tests.common.test_study_runs import call, with_arm
call(Path(sys.argv[2]), with_arm("slow", rate=1.5, label="slow"))
"""


def begin_slow_study(folder):
    """A study in a process of its own, when its last arm's first run has begun."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(ROOT), str(folder)], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while not (folder / "runs" / "slow" / "seed0" / "starts.txt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return process


def read_table(folder):
    """study.csv, less the arm that the whole study does not have."""
    lines = (folder / "study.csv").read_text().splitlines()
    return [line for line in lines if ",slow," not in line]


def test_a_killed_study_leaves_no_run_behind_and_goes_on(tmp_path, capsys):
    process = begin_slow_study(tmp_path / "s")
    process.kill()
    process.communicate(timeout=100)
    (tmp_path / "s" / "runs" / "slow" / "seed0" / "go").touch()
    (tmp_path / "s" / "runs" / "slow" / "seed1").mkdir()
    (tmp_path / "s" / "runs" / "slow" / "seed1" / "go").touch()
    # This waits for the lock, which the run of the killed study holds until it has seen that.
    began = time.monotonic()
    call(tmp_path / "s", with_arm("slow", rate=1.5, label="slow"))
    assert time.monotonic() - began < 200, "a slow run takes 300 s"
    made = starts(tmp_path / "s")
    assert made.pop("slow/seed0") == 2 and set(made.values()) == {1} and len(made) == 7
    call(tmp_path / "whole")
    assert read_table(tmp_path / "s") == read_table(tmp_path / "whole")


def test_sigterm_stops_the_runs_and_the_study(tmp_path):
    process = begin_slow_study(tmp_path / "s")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)
    assert process.returncode == 1  # StoppedBySignal, which launch.py makes 143
    assert not list(tmp_path.glob("s/runs/slow/seed0/summary.json"))
    assert not list(tmp_path.glob("s/study.md"))


def test_the_signal_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.setattr(
        study_runs.StudyProgress, "begin", lambda self, run: os.kill(os.getpid(), signal.SIGINT)
    )
    with pytest.raises(StoppedBySignal, match="stopped with . of 6 runs to do; the same command"):
        call(tmp_path / "s")


def test_progress_is_told_now_and_then_with_the_time_left(tmp_path, monkeypatch, capsys):
    runs = make_runs({"half": {"rate": 0.5}, "one": {"rate": 1.0}}, TASK, 1, tmp_path)
    clock = [100.0]
    monkeypatch.setattr(study_progress.time, "monotonic", lambda: clock[0])
    progress = StudyProgress(runs, "test/accuracy", "accuracy", jobs=1)
    progress.begin(runs[0])
    runs[0].folder.mkdir(parents=True)
    for second in range(80):
        clock[0] = 100.0 + second
        if second == 30:
            (runs[0].folder / "metrics.jsonl").write_text('{"epoch": 1}\n')
        progress.tell()
    told = capsys.readouterr().out.splitlines()
    # One of two epochs took 30 s, 20 for the start: the other takes 10, and the other run 40.
    assert told[:2] == [
        "[1/2] half, seed 0",
        "0/2 runs done; half, seed 0 at epoch 1/2; about 50 s left",
    ]
    assert len(told) == 3


def test_the_time_left_is_that_of_later_epochs(tmp_path, monkeypatch, capsys):
    """The first epoch has the compilation; epochs of an earlier session took no time of this."""
    run = make_runs({"half": {"rate": 0.5, "epochs": 12}}, TASK, 1, tmp_path)[0]
    run.folder.mkdir(parents=True)
    rows = run.folder / "metrics.jsonl"
    rows.write_text('{"epoch": 0}\n' * 2)
    clock = [100.0]
    monkeypatch.setattr(study_progress.time, "monotonic", lambda: clock[0])
    progress = StudyProgress([run], "test/accuracy", "accuracy", jobs=1)
    progress.begin(run)
    for second in range(41):
        clock[0] = 100.0 + second
        if second in (20, 25, 30):
            rows.write_text(rows.read_text() + '{"epoch": 0}\n')
        progress.tell()
    told = capsys.readouterr().out.splitlines()
    assert told[1] == "0/1 runs done; half, seed 0 at epoch 5/12; about 35 s left"


@pytest.mark.parametrize(
    "flags, settings, message",
    [
        ({"study": "none"}, {}, "--study=none is unknown: choose one of toy-rates; or list, or a"),
        ({"task": "toy"}, {}, "--task does not go with --study: it is the study's own"),
        ({"resume": True}, {}, "--resume does not go with --study: a study always goes on"),
        ({"mode": "eval"}, {}, "--mode does not go with --study: leave it out"),
        ({"run": ["x"]}, {}, "--run does not go with --study: leave it out"),
        ({"seeds": 0}, {}, "--seeds=0 is out of range: it must be at least 1"),
        ({"jobs": -1}, {}, "--jobs=-1 is out of range"),
        ({"budget": "cpu"}, {}, "--budget=cpu is unknown: choose one of quick"),
        ({"vectors": "x"}, {}, "--study=toy-rates: --vectors is not used by the study toy-rates"),
        ({}, {"rate": 2.0}, "--study=toy-rates: --rate is set by the arm 'half' of the study: "),
        ({"seeds": 10**9}, {}, "--seeds=1e+09 is out of range: it must be at least 1 and at most"),
        ({}, {"seed": 2}, "--seed does not go with --study: --seeds says how many"),
        ({}, {"crf": True}, "--crf does not belong to --task=toy: leave it out"),
        (
            {},
            {"data_dir": "nowhere"},
            "--study=toy-rates: arm 'half': --data_dir=nowhere does not exist",
        ),
        ({"study": "list", "seeds": 3}, {}, "--workdir does not go with --study=list"),
        ({"study": "none.yaml"}, {}, "--study=none.yaml cannot be read"),
    ],
)
def test_mistakes_leave_nothing(tmp_path, flags, settings, message):
    with pytest.raises(InputError) as error:
        call(tmp_path / "s", settings=settings, **flags)
    assert str(error.value).startswith(message) and not (tmp_path / "s").exists()


def test_a_corpus_is_not_taken_unnoticed(tmp_path):
    budgets = {"cpu": dataclasses.replace(STUDY.budgets["quick"], needs_data=True)}
    study = dataclasses.replace(STUDY, budgets=budgets)
    with pytest.raises(InputError, match="--study=toy-rates --budget=cpu needs --data_dir=FOLDER"):
        call(tmp_path / "s", study, budget="cpu")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    call(tmp_path / "s", seeds=1)
    other = with_arm("two | 2", rate=3.0)
    with pytest.raises(InputError, match="holds a study with rate 2.0 in the arm 'two . 2', not 3"):
        call(tmp_path / "s", other)
    with pytest.raises(InputError, match="holds this study without the arm 'new'"):
        call(tmp_path / "s", with_arm("new", rate=3.0))
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "config.json").touch()
    with pytest.raises(InputError, match="holds something else: choose another folder"):
        call(tmp_path / "t")
    other = dataclasses.replace(STUDY, name="other")
    with pytest.raises(InputError, match="s holds the study toy-rates: choose another --workdir"):
        call(tmp_path / "s", other)
    (tmp_path / "s" / "study.json").write_text("{}")
    with pytest.raises(InputError, match="study.json is not as a study writes it: restore it"):
        call(tmp_path / "s")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--workdir=.*file cannot be made: File exists"):
        call(tmp_path / "file")
    (tmp_path / "s" / "study.json").write_text("{")
    with pytest.raises(InputError, match="study.json cannot be read"):
        call(tmp_path / "s")


def test_a_run_that_can_be_repeated_by_its_command(tmp_path):
    call(tmp_path / "s", seeds=1)
    saved = json.loads((tmp_path / "s" / "study.json").read_text())
    assert saved["arms"]["half"] == {"epochs": 2, "rate": 0.5}
    text = (tmp_path / "s" / "study.md").read_text()
    assert saved["answer"].replace("<", "&lt;") in text
    assert starts(tmp_path / "s") == {"half/seed0": 1, "one-b/seed0": 1, "two-2/seed0": 1}


def test_the_report_s_size_is_named_with_the_data_and_no_other_setting(tmp_path):
    full = Budget({"epochs": 9}, needs_data=True)
    study = dataclasses.replace(STUDY, budgets={**STUDY.budgets, "full": full})
    call(tmp_path / "s", study, seeds=1, settings={"label": "short"})
    text = (tmp_path / "s" / "study.md").read_text()
    assert "    python launch.py --study=toy-rates --budget=full --data_dir=FOLDER\n" in text

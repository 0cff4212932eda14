"""Finished studies are collected, and stay when they are collected again without their runs."""

import json

import pytest

from common.errors import InputError
from common.study_results import BEGIN, END, FILES, collect, main

COLUMNS = "arm,metric,mean,deviation,reported,difference,difference_low,difference_high"


def finish(folder, name, task, answer):
    folder.mkdir(parents=True)
    for file in FILES:
        (folder / file).write_text(f"{file} of {name}")
    (folder / "study.csv").write_text(
        f"{COLUMNS}\nold,test/token_f1,0.51,0.02,0.6,,,\nnew,test/token_f1,0.5251,,0.98,0.015,,\n"
        "unasked,test/token_f1,0.5,0.1,,0.1,0,1\nsure,test/token_f1,0.5,0.1,0.5,-0.01,-0.02,0.01\n"
    )
    note = {"study": name, "task": task, "question": f"{name}?", "answer": answer}
    (folder / "study.json").write_text(json.dumps(note))


def test_finished_studies_are_collected(tmp_path):
    runs, target = tmp_path / "runs", tmp_path / "docs"
    finish(runs / "study-B-x-cpu", "B-x", "cifar", "yes")
    finish(runs / "study-A-y-cpu", "A-y", "aspect", "no")
    finish(runs / "study-A-y-quick", "A-y", "aspect", "not this")
    (runs / "study-begun-cpu").mkdir()
    assert collect(runs, target) == ["A-y", "B-x"]
    assert (target / "B-x" / "study.md").read_text() == "study.md of B-x"
    text = (target / "README.md").read_text()
    assert text.index("CIFAR") < text.index("(B-x/study.md)** B-x?  \nyes") < text.index("SemEval")
    assert text.index("SemEval") < text.index("A-y?  \nno") and "not this" not in text
    assert collect(tmp_path / "empty", target) == ["A-y", "B-x"]
    assert (target / "README.md").read_text() == text


def test_a_damaged_study_is_named_in_a_line(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "runs" / "study-B-x-cpu"
    finish(folder, "B-x", "cifar", "yes")
    (folder / "study.json").write_text('{"study": "B-x"}')
    monkeypatch.setattr("sys.argv", ["study_results", str(tmp_path / "runs"), str(tmp_path / "d")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"{folder}/study.json is damaged: run the study again" in capsys.readouterr().err


def test_the_table_beside_the_reports_is_written_into_the_readme(tmp_path):
    finish(tmp_path / "runs" / "study-B-x-cpu", "B-x", "cifar", "yes")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        collect(tmp_path / "runs", tmp_path / "docs", readme)
        lines = readme.read_text().splitlines()
        assert lines[:2] == ["before", BEGIN] and lines[-2:] == [END, "after"]
        assert lines[4:-2] == [
            f"| [B-x]({tmp_path}/docs/B-x/study.md) | old "
            "| test token f1 | 0.6 | 0.5100 ± 0.0200 |  |",
            "|  | new | test token f1 | 0.98 | 0.5251 | +0.0150 |",
            "|  | sure | test token f1 | 0.5 | 0.5000 ± 0.1000 | -0.0100 (-0.0200 to +0.0100) |",
        ]
    assert lines[4].replace(f"{tmp_path}/docs/", "") in (tmp_path / "docs/README.md").read_text()
    readme.write_text("no marks")
    with pytest.raises(InputError, match="README.md has not the lines <!-- table"):
        collect(tmp_path / "runs", tmp_path / "docs", readme)

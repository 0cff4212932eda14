"""Finished studies are collected, and stay when they are collected again without their runs."""

import json

from common.study_results import FILES, collect


def finish(folder, name, task, answer):
    folder.mkdir(parents=True)
    for file in FILES:
        (folder / file).write_text(f"{file} of {name}")
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

"""`python -m benchmarks`: its flags reach the questions that use them, and what is done is kept."""

import json
import sys
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as program
from benchmarks.report import Row


def run(monkeypatch, modules, *arguments):
    monkeypatch.setattr(sys, "argv", ["python -m benchmarks", *arguments])
    monkeypatch.setattr(
        program.importlib, "import_module", lambda name: modules[name.rpartition(".")[2]]
    )
    program.main()


def test_the_tagger_is_given_the_corpus_and_the_vectors(monkeypatch, tmp_path, capsys):
    given = {}

    def tagger(**texts):
        given.update(texts)
        return {"a table": [Row("a case", {"athanor": 0.5, "torch": 1.0})]}

    modules = {
        "tagger": SimpleNamespace(main=tagger),
        "crf": SimpleNamespace(main=lambda: {}),
    }
    path = tmp_path / "bench.json"
    flags = ("--data_dir=corpus", "--embeddings=a.bin", f"--json={path}")
    run(monkeypatch, modules, "crf", "tagger", *flags)
    assert given == {"data_dir": "corpus", "embeddings": "a.bin"}
    saved = json.loads(path.read_text())
    assert list(saved["questions"]) == ["crf", "tagger"]
    assert saved["questions"]["tagger"]["tables"]["a table"][0]["ratios"] == {"torch": 2.0}
    assert str(path) in capsys.readouterr().out


def test_what_was_measured_is_kept_when_the_next_question_fails(monkeypatch, tmp_path):
    def fail():
        raise MemoryError

    modules = {
        "crf": SimpleNamespace(main=lambda: {"a table": []}),
        "memory": SimpleNamespace(main=fail),
    }
    path = tmp_path / "bench.json"
    with pytest.raises(MemoryError):
        run(monkeypatch, modules, "crf", "memory", f"--json={path}")
    assert list(json.loads(path.read_text())["questions"]) == ["crf"]


def test_an_unknown_question_is_named(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, {}, "weather")
    assert "no such question: weather" in capsys.readouterr().err

"""`python -m benchmarks`: its flags reach the questions that use them, and what is done is kept."""

import json
import sys
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as program
from benchmarks.report import Row

ROWS = [Row("a case", {"athanor": 0.5, "torch": 1.0})]


def run(monkeypatch, questions, *arguments, peers=()):
    monkeypatch.setattr(sys, "argv", ["python -m benchmarks", *arguments])
    monkeypatch.setattr(program, "PEERS", peers)
    modules = {name: SimpleNamespace(question=question) for name, question in questions.items()}
    monkeypatch.setattr(
        program.importlib, "import_module", lambda name: modules[name.rpartition(".")[2]]
    )
    program.main()


def test_the_tagger_is_given_the_corpus_and_the_vectors(monkeypatch, tmp_path, capsys):
    given = {}

    def tagger(**texts):
        given.update(texts)
        return {"a table": lambda: ROWS}

    path = tmp_path / "bench.json"
    flags = ("--data_dir=corpus", "--embeddings=a.bin", f"--json={path}")
    run(monkeypatch, {"tagger": tagger, "crf": lambda: {}}, "crf", "tagger", *flags)
    assert given == {"data_dir": "corpus", "embeddings": "a.bin"}
    saved = json.loads(path.read_text())
    assert list(saved["questions"]) == ["crf", "tagger"]
    assert saved["questions"]["tagger"]["tables"]["a table"][0]["ratios"] == {"torch": 2.0}
    assert str(path) in capsys.readouterr().out


@pytest.mark.parametrize("error, status", [(MemoryError, None), (KeyboardInterrupt, 130)])
def test_tables_are_kept_when_the_next_one_fails(monkeypatch, tmp_path, capsys, error, status):
    def fail():
        raise error

    path = tmp_path / "bench.json"
    questions = {"crf": lambda: {"first": lambda: ROWS, "second": fail}}
    with pytest.raises(error if status is None else SystemExit) as stopped:
        run(monkeypatch, questions, "crf", f"--json={path}")
    assert list(json.loads(path.read_text())["questions"]["crf"]["tables"]) == ["first"]
    if status:
        assert stopped.value.code == status
        assert capsys.readouterr().err.splitlines()[-1].endswith(str(path))


@pytest.mark.parametrize(
    "arguments, peers, said",
    [
        (["weather"], (), "no such question: weather"),
        (
            ["crf"],
            ("json", "no_such_peer"),
            "no_such_peer not found: pip install -r req",
        ),
        (["crf", "--json=."], (), "--json=. is a folder"),
    ],
)
def test_what_cannot_be_is_said_at_once(monkeypatch, capsys, arguments, peers, said):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, {}, *arguments, peers=peers)
    assert stopped.value.code == 2 and said in capsys.readouterr().err

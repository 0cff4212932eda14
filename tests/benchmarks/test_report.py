"""What was measured is shown and kept as it is; nothing is timed here."""

import json

import pytest

from benchmarks.page import describe, page
from benchmarks.page import main as page_main
from benchmarks.report import Row, load_rows, machine, measure, save, show

ROWS = [
    Row("one", {"athanor": 0.002, "peer": 0.005}),
    Row("two", {"athanor": 0.001}, note="no peer"),
]
MEMORY = [Row("batch 1", {"PyTorch": 2.0**20, "athanor": 3 * 2.0**20}, "MiB")]


def test_ratios_say_how_much_more_the_others_take_than_the_first():
    assert ROWS[0].ratios() == {"peer": pytest.approx(2.5)} and ROWS[1].ratios() == {}
    assert MEMORY[0].ratios() == {"athanor": pytest.approx(3.0)}


def test_ratios_come_first_in_a_table(capsys):
    show("question", ROWS)
    heads, one, two = capsys.readouterr().out.splitlines()[2:]
    assert heads.split("  ")[0].strip() == "case" and "peer / athanor" in heads
    assert one.split() == ["one", "2.50", "2.000", "5.000"]
    assert two.split() == ["two", "-", "1.000", "-", "no", "peer"]
    show("memory", MEMORY)
    assert capsys.readouterr().out.splitlines()[-1].split() == ["batch", "1", "3.00", "1", "3"]


def test_results_are_kept_with_machine_and_versions(tmp_path):
    path = tmp_path / "new" / "bench.json"
    save(path, machine(), {"crf": {"B 1": ROWS}}, {"crf": 12.0})
    found = json.loads(path.read_text())
    rows = found["questions"]["crf"]["tables"]["B 1"]
    assert rows[0]["ratios"]["peer"] == pytest.approx(2.5) and load_rows(rows) == ROWS
    assert {"processor", "cores", "load", "python", "jax"} <= set(found["machine"])
    assert found["date"] and found["command"].startswith("python -m benchmarks")


def test_the_page_holds_every_table_and_what_it_answers(tmp_path):
    path = tmp_path / "bench.json"
    tables = {"crf": {"B 1": ROWS}, "memory": {"cnn": MEMORY}}
    save(path, machine(), tables, {"crf": 12.0, "memory": 3.0})
    found = page(json.loads(path.read_text()))
    assert "| case | peer / athanor | athanor, ms | peer, ms |  |" in found
    assert "| one | 2.50 | 2.000 | 5.000 |  |" in found
    assert "| batch 1 | 3.00 | 1 | 3 |" in found
    assert f"## {describe('memory')[0]}" in found and "Measured in 12 s." in found


def test_a_table_is_made_when_it_is_asked_for(capsys):
    made = []

    def make(name):
        made.append(name)
        return ROWS

    found = measure({"a": lambda: make("a"), "b": lambda: make("b")})
    assert not made
    assert next(found) == ("a", ROWS) and made == ["a"]
    assert "a" in capsys.readouterr().out and next(found)[0] == "b"


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", None])
def test_a_page_of_something_else_is_refused_in_a_line(text, tmp_path, monkeypatch, capsys):
    path = tmp_path / "bench.json"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr("sys.argv", ["page", str(path)])
    with pytest.raises(SystemExit) as stopped:
        page_main()
    out, err = capsys.readouterr()
    assert stopped.value.code == 2 and not out
    assert f"{path} is not what" in err.splitlines()[-1]

"""A finished run is scored again, averaged with another, and used on anyone's text."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from common.errors import InputError
from text import batches, commands, predict
from text.corpus_files import read

LAUNCHER = dict.fromkeys(("workdir", "together", "run", "input", "format", "top", "nbest")) | {
    "mode": "train",
    "resume": False,
}
SETTINGS = {
    "crf": True, "embeddings": "random", "embedding_size": 16, "hidden_size": "12", "epochs": 8,
    "devices": 1, "chars": "cnn", "word_shapes": True, "learning_rate": 2e-2,
}  # fmt: skip
TEXTS = ("Great screen, but the keyboard sticks.", "", "The battery life amazes me")


def launch(settings=None, **launcher):
    commands.run(LAUNCHER | launcher, settings or {}, "python launch.py ...")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, kept_programs):
    """Two small runs on the embedded corpus, in two widths: compiling takes most of their time."""
    folder = tmp_path_factory.mktemp("runs")
    found = batches.bucket_widths
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "bucket_widths", lambda lengths, *_: found(lengths, 2))
        for seed in (0, 1):
            launch(SETTINGS | {"seed": seed}, workdir=str(folder / str(seed)))
    return [str(folder / str(seed)) for seed in (0, 1)]


def run_predict(capsys, runs, *inputs, decode="terms", **launcher):
    """The lines that --mode=predict prints."""
    capsys.readouterr()
    settings = {"devices": 1, "decode": decode}
    launch(settings, mode="predict", run=list(runs), input=list(inputs), **launcher)
    return capsys.readouterr().out.rstrip("\n").split("\n")


def test_the_embedded_corpus_is_what_it_says(runs, capsys):
    summary = json.loads((Path(runs[0]) / "summary.json").read_text())
    assert [summary["corpus"][split]["sentences"] for split in ("train", "val", "test")] == [
        400, 100, 100
    ]  # fmt: skip
    assert summary["corpus"]["test"]["ceiling"] > 0.99
    assert summary["test/token_f1"] > 0.1, "a run that learns nothing would show little"


def test_eval_repeats_the_scores_of_the_run(runs, capsys):
    summary = json.loads((Path(runs[0]) / "summary.json").read_text())
    capsys.readouterr()
    launch({"devices": 1}, mode="eval", run=runs[:1], format="jsonl")
    scores = json.loads(capsys.readouterr().out)
    assert scores == {name: summary[name] for name in scores} and len(scores) == 9


def test_an_average_of_a_run_with_itself_is_that_run(runs, capsys, tmp_path):
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    alone = run_predict(capsys, runs[:1], *TEXTS, format="jsonl")
    twice = run_predict(capsys, [runs[0], str(copy)], *TEXTS, format="jsonl")
    both = run_predict(capsys, runs, *TEXTS, format="jsonl")
    assert alone == twice and alone != both
    launch({"devices": 1}, mode="eval", run=runs)
    said = capsys.readouterr().out
    assert "2 runs averaged" in said and "ceiling of words and bio: F1 1.0000" in said


@pytest.mark.parametrize("decode", ["terms", "path"])
def test_a_json_line_has_the_text_and_its_distinct_terms(runs, capsys, decode):
    printed = run_predict(capsys, runs, *TEXTS, decode=decode, format="jsonl", nbest=3)
    lines = [json.loads(line) for line in printed]
    assert [line["text"] for line in lines] == list(TEXTS)
    for line in lines:
        terms = [term["term"] for term in line["terms"]]
        assert len(set(terms)) == len(terms)
        for term in line["terms"]:
            assert line["text"][term["from"] : term["to"]] == term["term"]
            assert (0.5 if decode == "terms" else 0) < term["confidence"] <= 1
        chances = [path["probability"] for path in line["nbest"]]
        assert chances == sorted(chances, reverse=True) and 0 < sum(chances) <= 1 + 1e-5
        if line["nbest"] and decode == "path":
            assert {t["term"] for t in line["nbest"][0]["terms"]} == set(terms)
    assert len(lines[0]["nbest"]) == 3 and len(lines[1]["nbest"]) == 1


def test_files_standard_input_and_sentences_give_the_same(runs, capsys, tmp_path, monkeypatch):
    texts = [text for text in TEXTS if text]
    plain = tmp_path / "reviews.txt"
    plain.write_text("\n".join(texts) + "\n")
    lines = tmp_path / "reviews.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with plain.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        piped = run_predict(capsys, runs[:1], "-", format="jsonl")
    for inputs in ((str(plain),), (str(lines),), texts):
        assert run_predict(capsys, runs[:1], *inputs, format="jsonl") == piped


def test_chunks_change_nothing(runs, capsys, tmp_path, monkeypatch):
    file = tmp_path / "reviews.txt"
    file.write_text("\n".join(f"{text} {n}" for n in range(4) for text in TEXTS if text))
    whole = run_predict(capsys, runs[:1], str(file))
    monkeypatch.setattr(predict, "CHUNK", 3)
    assert run_predict(capsys, runs[:1], str(file)) == whole


def test_xml_is_read_back(runs, capsys, tmp_path):
    found = tmp_path / "found.xml"
    found.write_text("\n".join(run_predict(capsys, runs, *TEXTS, "a < b & c", format="xml")))
    sentences = read(found, log=print).sentences
    assert [sentence.text for sentence in sentences] == [*TEXTS, "a < b & c"]


def test_html_is_a_page_that_marks_the_terms(runs, capsys):
    predictions = [json.loads(x) for x in run_predict(capsys, runs, *TEXTS, format="jsonl")]
    page = "\n".join(run_predict(capsys, runs, *TEXTS, "a < b & c", format="html", nbest=2))
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>")
    assert page.count('<p lang=""') == len(TEXTS) + 1
    assert "a &lt; b &amp; c" in re.sub("<small>.*?</small>|<[^>]+>", "", page)
    terms = [term for prediction in predictions for term in prediction["terms"]]
    assert terms and all(f">{term['term']}</mark>" in page for term in terms)
    assert all(f"<small>{term['confidence']:.2f}</small>" in page for term in terms)
    assert page.count("<li") > len(TEXTS)


def test_text_shows_terms_with_offsets_and_confidence(runs, capsys):
    terms = json.loads(run_predict(capsys, runs, TEXTS[0], format="jsonl")[0])["terms"]
    assert "nbest" not in json.loads(run_predict(capsys, runs, TEXTS[0], format="jsonl")[0])
    lines = run_predict(capsys, runs, TEXTS[0], nbest=2)
    assert lines[0] == TEXTS[0] and len(lines) == 1 + max(len(terms), 0) + 2
    for term, line in zip(terms, lines[1:], strict=False):
        place = f"{term['from']}-{term['to']}"
        assert line.split() == [*term["term"].split(), place, f"{term['confidence']:.3f}"]
    assert lines[-1].startswith("    probability ")
    assert run_predict(capsys, runs, TEXTS[0], nbest=1) == lines[:-1]


def test_what_a_terminal_would_obey_is_not_printed(runs, capsys):
    text = "The \x1b[31mfood\x1b[0m was\x9b2J good\rbad\nfood"
    lines = run_predict(capsys, runs, text)
    assert lines[0] == "The \ufffd[31mfood\ufffd[0m was\ufffd2J good\ufffdbad\ufffdfood"
    [line] = run_predict(capsys, runs, text, format="jsonl")
    assert json.loads(line)["text"] == text and line.isprintable()


def test_decoding_may_differ_from_the_runs(runs, capsys):
    for decode in ("path", "terms"):
        launch({"devices": 1, "decode": decode}, mode="eval", run=runs)
        assert "exact" in capsys.readouterr().out
    with pytest.raises(InputError, match="--decode=best is unknown"):
        run_predict(capsys, runs, "x", decode="best")


def test_a_run_folder_is_all_that_is_needed(runs, capsys, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(runs[0], moved)
    assert run_predict(capsys, [str(moved)], *TEXTS) == run_predict(capsys, runs[:1], *TEXTS)


@pytest.mark.parametrize(
    "launcher, settings, message",
    [
        ({"input": ["a.xml"]}, {}, "--input=a.xml does not exist"),
        ({"input": []}, {}, "--mode=predict needs --input=SENTENCE"),
        ({"input": ["x"], "format": "table"}, {}, "--format=table is unknown: choose one of text"),
        ({"input": ["x"], "nbest": 0}, {}, "--nbest=0 is out of range"),
        ({"input": ["x"], "nbest": 1, "format": "xml"}, {}, "--nbest=1 has no effect with --form"),
        ({"input": ["x"], "top": 3}, {}, "--top does not go with --mode=predict"),
        ({"input": ["x"]}, {"crf": True}, "--crf is fixed by the run in --run"),
        ({"input": ["x"]}, {"columns": "0,1"}, "--columns=0,1 is for files, and not every --in"),
        ({"input": ["x"], "run": None}, {}, "--mode=predict needs --run=FOLDER"),
        ({"input": ["x"], "run": ["no/run"]}, {}, "no/run/config.json does not exist"),
        ({"mode": "eval", "format": "xml"}, {}, "--format=xml is unknown: choose one of text, j"),
        ({"mode": "eval", "nbest": 2}, {}, "--nbest does not go with --mode=eval"),
        ({"mode": "eval"}, {"test_file": "no.xml"}, "no.xml does not exist"),
        ({"input": ["."]}, {}, ". is a folder: give a file"),
    ],
)
def test_mistakes(runs, launcher, settings, message):
    with pytest.raises(InputError) as error:
        launch({"devices": 1} | settings, **{"mode": "predict", "run": runs[:1]} | launcher)
    assert message in str(error.value)


def test_a_run_counts_once(runs):
    for again in (runs[0], f"{runs[0]}/../{Path(runs[0]).name}"):
        told = f"--run={runs[0]} and --run={again} are one run: leave one out"
        with pytest.raises(InputError, match=told):
            launch({"devices": 1}, mode="predict", run=[runs[0], again], input=["x"])


def test_columns_of_a_file_may_be_named(runs, capsys, tmp_path):
    file = tmp_path / "a.conll"
    file.write_text("O 7 Great\nB 8 screen\n")
    capsys.readouterr()
    settings = {"devices": 1, "columns": "tag,n,token"}
    launch(settings, mode="predict", run=runs[:1], input=[str(file)], format="jsonl")
    assert json.loads(capsys.readouterr().out)["text"] == "Great screen"


def test_runs_with_other_test_data_are_told(runs, capsys, tmp_path):
    other = with_settings(runs[1], tmp_path / "other", test_file="other.xml")
    launch({"devices": 1}, mode="eval", run=runs)
    assert "other test data" not in capsys.readouterr().err
    launch({"devices": 1}, mode="eval", run=[runs[0], other])
    told = f"{other} has other test data than {runs[0]}, whose are scored: --test_file chooses"
    assert told in capsys.readouterr().err


def with_settings(run, folder, **settings):
    """A copy of a run with other settings."""
    shutil.copytree(run, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))
    return str(folder)


def test_runs_that_cut_sentences_otherwise_are_not_averaged(runs, tmp_path):
    other = with_settings(runs[1], tmp_path / "other", max_length=50)
    with pytest.raises(InputError, match=f"--run={other} has another --max_length than"):
        launch({"devices": 1}, mode="eval", run=[runs[0], other])


def test_runs_that_choose_terms_otherwise_are_averaged_when_told_how(runs, tmp_path, capsys):
    changed = {"decode": "path", "constrained": False}
    other = with_settings(runs[1], tmp_path / "other", **changed)
    both = {"mode": "eval", "run": [runs[0], other]}
    with pytest.raises(InputError, match="another --constrained than .*: give --constrained, "):
        launch({"devices": 1}, **both)
    with pytest.raises(InputError, match="another --decode than .*: give --decode, which then"):
        launch({"devices": 1, "constrained": True}, **both)
    launch({"devices": 1, "constrained": True, "decode": "terms"}, **both)
    told = capsys.readouterr().out
    assert "2 runs averaged\n" in told and "\ntest, --decode=terms " in told


def test_standard_input_has_every_kind_of_line_end_and_no_byte_order_mark(
    tmp_path, monkeypatch, capsys
):
    text = "\ufeffone\r\ntwo\rthree\u2028\x85\x0b\x0cis one\n\ncaf\u00e9"
    (tmp_path / "a").write_bytes(text.encode() + b" \xff\n")
    with (tmp_path / "a").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        found = [sentence.text for chunk in predict._read("-", None) for sentence in chunk]
    assert found == ["one", "two", "three\u2028\x85\x0b\x0cis one", "caf\u00e9 \ufffd"]
    assert capsys.readouterr().err.startswith("standard input is not all UTF-8")
    [[sentence]] = predict._read(os.fsdecode(b"caf\xe9 here"), None)
    assert sentence.text == "caf\ufffd here"

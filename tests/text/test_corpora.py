"""Files in every format, splits from files and folders, leaks, and the official counts."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError
from text import corpora
from text.corpora import DEMO, hold_out, leaks, load, thin
from text.corpus_files import read
from text.semeval import write_predictions
from text.sentences import Sentence, Span
from text.tags import SCHEMES, ceiling
from text.tokenizers import TOKENIZERS

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SENTENCES = (Sentence("1", "The wine list", (Span(4, 13),)), Sentence("2", "Good"))
XML = (
    '<s><sentence id="1"><text>The wine list</text><aspectTerms><aspectTerm term="wine list" '
    'from="4" to="13"/></aspectTerms></sentence><sentence id="2"><text>Good</text></sentence></s>'
)
JSON = '{"text": "The wine list", "terms": [[4, 13]]}\n\n{"text": "Good", "terms": [], "id": "2"}\n'
COLUMNS = "The O\nwine B\nlist I\n\nGood O\n"


def silent(line: str) -> None:
    raise AssertionError(line)


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def put_sentences(path: Path, *texts: str) -> str:
    """A file in which each text is a sentence whose first character is a term."""
    write_predictions(path, [Sentence(str(n), t, (Span(0, 1),)) for n, t in enumerate(texts)])
    return str(path)


# Reading


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    "name, content",
    [
        ("a.xml", XML),
        ("a.xml.gold", '<?xml version="1.0"?>\n' + XML),
        ("a", XML),
        ("a.jsonl", JSON),
        ("a.JSON", JSON),
        ("a.txt", JSON),
        ("a.conll", COLUMNS),
        ("a.tsv", COLUMNS.replace(" ", "\t")),
        ("a.txt", COLUMNS),
        ("a", COLUMNS.replace("\n", "\r\n")),
    ],
)
def test_formats(tmp_path, name, content, mark):
    reading = read(put(tmp_path / name, mark + content), log=silent)
    assert reading == (SENTENCES, 0, 0)


def test_plain_text_is_for_prediction(tmp_path):
    path = put(tmp_path / "a.txt", "\ufeffGood food. \n\n<3 the bar\u2028too\r\n{is it}\n".encode())
    reading = read(path, log=silent, plain=True)
    assert [(s.id, s.text) for s in reading.sentences] == [
        ("1", "Good food. "),
        ("3", "<3 the bar\u2028too"),
        ("4", "{is it}"),
    ]
    with pytest.raises(InputError, match="a.txt is plain text, which has no terms: give SemEval"):
        read(path, log=silent)


def test_json_lines(tmp_path):
    rows = [
        {"text": "a bb a", "terms": [[5, 6], [0, 1], [0, 1]], "id": 7},
        {"text": "c dd\u2028", "terms": [{"from": 2, "to": 4, "term": "dd", "confidence": 0.5}]},
        {"text": "e ff", "terms": [{"term": "ff", "from": 0, "to": 2}, [3, 9], [2, 2]], "id": None},
    ]
    content = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    lines: list[str] = []
    path = put(tmp_path / "a.jsonl", content)
    reading = read(path, log=lines.append)
    assert reading.sentences == (
        Sentence("7", "a bb a", (Span(0, 1), Span(5, 6))),
        Sentence("2", "c dd\u2028", (Span(2, 4),)),
        Sentence("3", "e ff", (Span(2, 4),)),
    )
    assert (reading.repaired, reading.skipped) == (1, 2)
    assert lines == [
        f"{path}, line 3, sentence 3: the term 'ff' is not at 0 to 2: moved to 2 to 4",
        f"{path}, line 3, sentence 3: no term can be at 3 to 9 of 4 characters: skipped",
        f"{path}, line 3, sentence 3: no term can be at 2 to 2 of 4 characters: skipped",
        f"{path}: 1 terms moved, 2 skipped",
    ]


def test_json_lines_of_which_some_have_no_terms_are_told(tmp_path):
    lines: list[str] = []
    path = put(tmp_path / "a.jsonl", '{"text": "a", "terms": [[0, 1]]}\n{"text": "b"}\n')
    assert len(read(path, log=lines.append).sentences) == 2
    assert lines == [
        f'{path}: 1 of 2 sentences, the first in line 2, have no "terms" and are taken to have none'
    ]
    read(put(tmp_path / "b.jsonl", '{"text": "a"}\n{"text": "b"}\n'), log=silent)


def test_merge_repeated(tmp_path):
    copies = "a O\nb B\n\nc B\n\na B\nb B\n\na B\nb O\n"
    path = put(tmp_path / "a.conll", copies)
    assert len(read(path, log=silent).sentences) == 4
    assert read(path, log=silent, merge_repeated=True).sentences == (
        Sentence("1", "a b", (Span(0, 1), Span(2, 3))),
        Sentence("2", "c", (Span(0, 1),)),
    )


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.xml", b"", "a.xml is empty: give a file with sentences"),
        ("a.txt", b" \r\n\t", "a.txt is empty"),
        ("a.xml", b"<html/>", "a.xml holds no sentence: give SemEval XML, CoNLL"),
        ("a.txt", b"good\n\xff\xfe", "a.txt, line 2: not UTF-8: save the file as UTF-8 text"),
        ("a.conll", b"\xe4 O\n", "a.conll, line 1: not UTF-8"),
        ("a.docx", b"PK\x03\nab\0", "a.docx, line 2: a zero byte, which no text has: save the"),
        ("a.conll", "a O\nb".encode("utf-16"), "a.conll, line 1: not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"', "a.jsonl, line 2: not a JSON object such as "),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1: not a JSON object such as "),
        ("a.jsonl", b'{"text": 1}', "a.jsonl, line 1: not a JSON object such as "),
        (
            "a.jsonl",
            b'{"text": "a", "text": "b"}',
            "line 1: the key 'text' stands twice: delete one",
        ),
        ("a.jsonl", b'{"text": "\\ud83d."}', "a.jsonl, line 1: half a surrogate pair"),
        ("a.jsonl", b'{"text": "a", "terms": [[0, ' + b"9" * 5000 + b"]]}", "line 1: not a JSON"),
        ("a.jsonl", b'["a"]', 'a.jsonl, line 1: not a JSON object such as {"text": "..."}'),
        ("a.jsonl", b'{"text": "a", "terms": "a"}', "a.jsonl, line 1: terms is not a list such"),
        ("a.jsonl", b'{"text": "a", "terms": [1]}', "a.jsonl, line 1: 1 is no term such as [0, 4]"),
        ("a.jsonl", b'{"text": "a", "terms": [["x", 1]]}', 'line 1: ["x", 1] is no term such as'),
        ("a.jsonl", b'{"text": "a", "terms": [{"from": 0}]}', 'line 1: {"from": 0} is no term'),
        (
            "a.jsonl",
            b'{"text": "a", "id": 1}\n{"text": "b", "id": "1"}',
            "a.jsonl, line 2: the id 1 is that of an earlier sentence too: give each its own",
        ),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, message):
    path = put(tmp_path / name, content)
    with pytest.raises(InputError) as error:
        read(path, log=silent)
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(InputError, match="is a folder: give a file"):
        read(tmp_path, log=silent)
    with pytest.raises(InputError, match="a.xml does not exist: check the path"):
        read(tmp_path / "a.xml", log=silent)
    with pytest.raises(
        InputError, match=r"--columns=0,1 is for column files, which .*a.xml is not"
    ):
        read(put(tmp_path / "a.xml", XML), log=silent, columns="0,1")


# Splits


@pytest.mark.parametrize(
    "train, val, test",
    [
        ("train.xml", None, "test.xml"),
        ("Laptop_Train_v2.xml", "laptop-dev.xml", "Laptops_Test_Gold.xml"),
        ("EN_REST_SB1_TRAIN.xml.gold", "x.Validation.xml", "ABSA16.TEST2.xml"),
    ],
)
def test_a_folder(tmp_path, train, val, test):
    put_sentences(tmp_path / train, "a", "b", "c", "d")
    put_sentences(tmp_path / test, "e", "f")
    if val:
        put_sentences(tmp_path / val, "g")
    for other in ("readme.txt", ".test.xml", "contest.xml", "trains.xml"):
        put(tmp_path / other, "nothing")
    (tmp_path / "test").mkdir()
    told: list[str] = []
    corpus = load(data_dir=str(tmp_path), val_fraction=0.5, log=told.append)
    assert corpus.name == tmp_path.name
    assert [s.text for s in corpus.test] == ["e", "f"]
    if val:
        assert [s.text for s in corpus.train] == ["a", "b", "c", "d"]
        assert [s.text for s in corpus.val] == ["g"]
        used = f"{tmp_path / val} is the validation split: --val_fraction holds out nothing"
        assert told == [used]
    else:
        assert not told
        assert len(corpus.train) == len(corpus.val) == 2
    assert all(name is None or str(tmp_path / name) in corpus.source for name in (train, val, test))


def test_columns_and_merging_reach_every_file(tmp_path):
    for split, token in (("train", "a"), ("test", "b")):
        put(tmp_path / f"x.{split}.conll", f"B {token}\nO c\n\nO {token}\nB c\n")
    corpus = load(
        data_dir=str(tmp_path),
        columns="tag,token",
        merge_repeated=True,
        val_fraction=0,
        log=silent,
    )
    assert corpus.train == (Sentence("1", "a c", (Span(0, 1), Span(2, 3))),)
    assert corpus.val == ()
    assert corpus.test == (Sentence("1", "b c", (Span(0, 1), Span(2, 3))),)


def test_files_go_before_the_folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for split in ("train", "test", "dev"):
        put_sentences(folder / f"{split}.xml", split)
    own = put_sentences(tmp_path / "own.xml", "own", "too")
    told: list[str] = []
    inside = load(data_dir=str(folder), log=told.append)
    assert [s.text for s in inside.train + inside.val + inside.test] == ["train", "dev", "test"]
    for split in ("train", "val", "test"):
        chosen: dict[str, Any] = {f"{split}_file": own}
        told.clear()
        corpus = load(data_dir=str(folder), log=told.append, **chosen)
        assert bool(told) == (split != "val")
        for other in ("train", "val", "test"):
            wanted = corpus if other == split else inside
            assert getattr(corpus, other) == getattr(wanted, other)
        assert [s.text for s in getattr(corpus, split)] == ["own", "too"]
    train, test = str(folder / "train.xml"), str(folder / "test.xml")
    alone = load(train_file=own, test_file=test, val_file=train, log=silent)
    assert alone.name == "own" and alone.val == inside.train


@pytest.mark.parametrize(
    "files, arguments, message",
    [
        ("", {"test_file": "test.xml"}, "no train sentences: give --train_file"),
        ("train.xml", {"train_file": "train.xml"}, "no test sentences: give --test_file"),
        (
            "train.xml",
            {"data_dir": "."},
            "no test sentences, and --data_dir=. has no file of that name: give --test_file",
        ),
        (
            "a.train.xml b.train.xml a.test.xml",
            {"data_dir": "."},
            "--data_dir=. has several train files (a.train.xml, b.train.xml): choose by "
            "--train_file",
        ),
        ("", {"data_dir": "absent"}, "--data_dir=absent is not a folder: give one with a train"),
        ("a.xml", {"train_file": "no.xml", "test_file": "a.xml"}, "no.xml does not exist"),
        ("", {"val_fraction": 1.0}, "--val_fraction=1.0 must be at least 0 and below 1"),
        ("", {"val_fraction": -0.1}, "--val_fraction=-0.1 must be at least 0 and below 1"),
        ("", {"val_fraction": float("nan")}, "--val_fraction=nan must be at least 0 and below 1"),
        (
            "train.xml test.xml",
            {"data_dir": ".", "val_fraction": 0.1},
            "--val_fraction=0.1 holds out 0 of 3 sentences: choose another, or 0 for no validation",
        ),
        ("train.xml test.xml", {"data_dir": ".", "val_fraction": 0.9}, "holds out 3 of 3"),
    ],
)
def test_what_cannot_be_loaded(tmp_path, monkeypatch, files, arguments, message):
    monkeypatch.chdir(tmp_path)
    for file in files.split():
        put_sentences(tmp_path / file, "a", "b", "c")
    with pytest.raises(InputError) as error:
        load(**arguments, log=silent)
    assert message in str(error.value)


def test_a_file_without_terms_is_refused(tmp_path):
    gold = put_sentences(tmp_path / "gold.xml", "a", "b")
    bare = str(put(tmp_path / "bare.xml", "<s><sentence><text>a</text></sentence></s>"))
    for train, test in ((gold, bare), (bare, gold)):
        with pytest.raises(InputError, match="bare.xml: no sentence has a term: give a file with"):
            load(train_file=train, test_file=test, val_fraction=0, log=silent)


def test_a_share_of_the_training_sentences():
    demo = partial(load, data_dir=str(DEMO), log=silent)
    whole, half, tenth = (demo(train_fraction=share) for share in (1.0, 0.5, 0.1))
    assert len(half.train) == round(len(whole.train) / 2)
    assert set(tenth.train) < set(half.train) < set(whole.train)
    assert [s for s in whole.train if s in set(half.train)] == list(half.train)
    assert (half.val, half.test) == (whole.val, whole.test)
    assert thin(whole.train, 0.5, seed=1) != half.train
    with pytest.raises(InputError, match="--train_fraction=0.0001 keeps 0 of 400 sentences"):
        demo(train_fraction=0.0001)


def test_hold_out():
    train = tuple(Sentence(str(n), str(n)) for n in range(50))
    kept, held = hold_out(train, 0.2, seed=3)
    assert len(held) == 10 and len(kept) == 40
    for part in (kept, held):
        assert list(part) == sorted(part, key=lambda sentence: int(sentence.id))
    assert set(kept) | set(held) == set(train)
    assert (kept, held) == hold_out(train, 0.2, seed=3)
    assert held != hold_out(train, 0.2, seed=4)[1]
    assert hold_out(train, 0.0, seed=3) == (train, ())


def test_fingerprint_is_of_texts_spans_and_splits(tmp_path):
    first = put_sentences(tmp_path / "1.xml", "abc", "d")
    other = put_sentences(tmp_path / "2.xml", "efg")
    moved = put(tmp_path / "3.jsonl", '{"text": "efg", "terms": [[1, 2]]}')
    same = put(tmp_path / "4.jsonl", '{"text": "efg", "terms": [[0, 1]], "id": "else"}')

    def print_of(train, test):
        return load(
            train_file=str(train), test_file=str(test), val_fraction=0, log=silent
        ).fingerprint

    reference = print_of(first, other)
    assert len(reference) == 16 and int(reference, 16) >= 0
    assert print_of(first, same) == reference
    assert len({reference, print_of(first, moved), print_of(other, first)}) == 3


# Leaks


def test_leaks():
    train = tuple(Sentence(str(n), text) for n, text in enumerate(["Great  food!", "STRASSE", "x"]))
    test = tuple(
        Sentence(str(n), text)
        for n, text in enumerate(["great food! ", "great food!", "straße", "great food", ""])
    )
    assert leaks(train, test) == 3
    assert leaks((), test) == leaks(train, ()) == 0


def test_leaks_are_reported(tmp_path):
    train = put_sentences(tmp_path / "1.xml", "Great food!", "b", "c")
    val = put_sentences(tmp_path / "2.xml", "D")
    test = put_sentences(tmp_path / "3.xml", "great food!", "c", "d", "e")
    lines: list[str] = []
    load(train_file=train, val_file=val, test_file=test, log=lines.append)
    assert [line.split(";")[0] for line in lines] == [
        "warning: 2 of 4 test sentences stand in the training split too",
        "warning: 1 of 4 test sentences stand in the validation split too",
    ]


# The embedded corpus, and the official ones


def test_the_demonstration_says_what_it_is(tmp_path, monkeypatch):
    lines: list[str] = []
    corpus = load(log=lines.append)
    assert corpus.name == "demo" and corpus.train and corpus.val and corpus.test
    assert "a small demonstration written for this project" in lines[0]
    assert "https://alt.qcri.org/semeval2014/task4/" in lines[0]
    assert "https://alt.qcri.org/semeval2016/task5/" in lines[0]
    assert len(lines) == 1, "every offset is right, and no sentence is there twice"
    assert [len(split) for split in (corpus.train, corpus.val, corpus.test)] == [400, 100, 100]
    monkeypatch.setattr(corpora, "DEMO", tmp_path / "absent")
    with pytest.raises(InputError, match="is not a folder"):
        load(log=lines.append)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the corpora are not at {DATA}")
@pytest.mark.parametrize(
    "name, sentences, spans, moved, best",
    [
        # One term of laptop14's test set begins inside a word: 653 of 654.
        ("semeval/laptop14", (3045, 800), (2358, 654), 12, 0.9985),
        ("semeval/rest14", (3041, 800), (3693, 1134), 0, 1.0),
        ("semeval/rest16", (2000, 676), (1743, 612), 0, 1.0),
        ("reviews_zh", (1821, 651), (1838, 653), 0, 1.0),
    ],
)
def test_official_counts(name, sentences, spans, moved, best):
    lines: list[str] = []
    corpus = load(data_dir=str(DATA / name), val_fraction=0, log=lines.append)
    splits = corpus.train, corpus.test
    assert tuple(map(len, splits)) == sentences
    assert tuple(sum(len(s.spans) for s in split) for split in splits) == spans
    assert sum(": moved to " in line for line in lines) == moved
    assert not any(line.endswith(": skipped") for line in lines)
    tokens = [TOKENIZERS["words"](sentence.text) for sentence in corpus.test]
    assert round(ceiling(corpus.test, tokens, SCHEMES["bio"]), 4) == best


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the corpora are not at {DATA}")
def test_repeated_chinese_sentences_are_merged():
    corpus = load(
        data_dir=str(DATA / "reviews_zh"), val_fraction=0, merge_repeated=True, log=lambda _: None
    )
    assert (len(corpus.train), len(corpus.test)) == (1705, 626)
    assert " " not in "".join(s.text for s in corpus.train + corpus.test)

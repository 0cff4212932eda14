"""Every parser: what is valid comes back, what is not gives one clean line, by many examples."""

import io
import json
import pickle
import random
import string
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from common.study_file import read_study
from tests.common.study_cases import TASK
from tests.fuzzing.mutation import mutate
from tests.fuzzing.parsers import PARSERS, message_of
from tests.vision.tfds_cases import frame_records
from text import conll, corpus_files, semeval, vector_files
from text.sentences import Sentence, Span
from text.tokenizers import TOKENIZERS
from vision import tfrecord
from vision.cifar_pickle import read_pickle
from vision.image_folder import read_image

FINDINGS = sorted((Path(__file__).parent / "fixtures" / "findings").iterdir())
few = settings(max_examples=30, derandomize=True, deadline=None, database=None)

# Every character but half surrogate pairs, with more of those that trouble readers of lines,
# offsets and columns: all that may end a line, marks that combine, right-to-left, astral, NUL.
TROUBLE = (
    "\n\r\v\f\x1c\x85\u2028\u2029\t \xa0\u3000\ufeff\x00\u0301\u05d0\u202e\U0001f600\u200d<&\"'\\{}"
)
characters = st.sampled_from(TROUBLE) | st.characters(exclude_categories=["Cs"])
texts = st.text(characters, max_size=30)
xml_texts = texts.map(lambda text: text.translate(dict.fromkeys([*range(32), 0xFFFE, 0xFFFF], "x")))
fields = st.text(characters.filter(lambda c: c not in "\n\r\t "), min_size=1, max_size=8)
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def sentences(draw, texts=texts):
    """A text with spans in it."""
    text = draw(texts)
    spans = st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))
    found = {Span(*pair) for pair in draw(st.lists(spans, max_size=3)) if pair[0] < pair[1]}
    return text, tuple(sorted(found))


def no_log(line):
    raise AssertionError(line)


def scratch(name, content):
    """A file of its own for every example, which tmp_path is not."""
    with tempfile.NamedTemporaryFile(suffix=name, delete=False) as file:
        file.write(content)
    return Path(file.name)


def read_back(name, content, read):
    path = scratch(name, content)
    try:
        return read(path)
    finally:
        path.unlink()


# What is damaged gives a result or one clean line


@pytest.mark.parametrize("name", PARSERS)
def test_valid_files_are_read(name, tmp_path):
    for content in PARSERS[name].seeds():
        assert message_of(PARSERS[name], content, tmp_path) is None


@pytest.mark.parametrize("name", PARSERS)
@given(content=st.binary(max_size=200), seed=st.integers(0, 2**32))
@few
def test_any_bytes_and_damaged_files_give_one_line_or_a_result(name, content, seed):
    chance = random.Random(seed)
    seeds = PARSERS[name].seeds()
    for changed in (content, mutate(chance.choice(seeds), chance.choice(seeds), chance)):
        with tempfile.TemporaryDirectory() as folder:
            message_of(PARSERS[name], changed, Path(folder))


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.name)
def test_what_fuzzing_found_stays_fixed(path, tmp_path):
    """Each is named after its parser and what it did."""
    message_of(PARSERS[path.name.partition("-")[0]], path.read_bytes(), tmp_path)


# What is valid comes back


@given(rows=st.lists(sentences(xml_texts), min_size=1, max_size=4))
@few
def test_semeval_xml(rows):
    written = [Sentence(str(n), *row) for n, row in enumerate(rows)]

    def read(path):
        semeval.write_predictions(path, written)
        return semeval.parse(path.read_bytes(), "a.xml", no_log)

    assert read_back(".xml", b"", read).sentences == tuple(written)


@given(rows=st.lists(sentences(), min_size=1, max_size=4), ascii=st.booleans())
@few
def test_json_lines(rows, ascii):
    objects = [{"text": text, "terms": spans} for text, spans in rows]
    lines = "\n".join(json.dumps(row, ensure_ascii=ascii) for row in objects)
    reading = read_back(".jsonl", lines.encode(), lambda path: corpus_files.read(path, log=no_log))
    assert [(s.text, s.spans) for s in reading.sentences] == rows


@given(rows=st.lists(st.lists(st.tuples(fields, st.sampled_from("OBI")), min_size=1), min_size=1),
       end=st.sampled_from(["\n", "\r\n", "\r"]))  # fmt: skip
@few
def test_columns(rows, end):
    blocks = [end.join(f"{token}\t{tag}" for token, tag in row) for row in rows]
    reading = conll.parse((end * 2).join(blocks), "a.conll", no_log)
    assert [sentence.text.replace(" ", "") for sentence in reading.sentences] == [
        "".join(token for token, _ in row) for row in rows
    ]
    for sentence in reading.sentences:
        assert all(0 <= start < end <= len(sentence.text) for start, end in sentence.spans)


@given(text=texts.filter(lambda text: "\0" not in text))  # which is refused
@few
def test_plain_lines_and_tokens_keep_the_offsets_of_the_text(text):
    lines = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    content = ("x\n" + text).encode()
    reading = read_back(
        ".txt", content, lambda path: corpus_files.read(path, log=no_log, plain=True)
    )
    if not reading.sentences[0].spans:  # else it looked like columns
        expected = ["x", *(line for line in lines if line.strip())]
        assert [sentence.text for sentence in reading.sentences] == expected
    for name in ("words", "characters"):
        spans = TOKENIZERS[name](text)
        assert [place for span in spans for place in span] == sorted(p for s in spans for p in s)
        assert "".join(text[slice(*span)] for span in spans) == "".join(text.split())


words = st.text(characters.filter(lambda c: not c.isspace()), min_size=1, max_size=8)
tables = st.integers(2, 4).flatmap(
    lambda size: st.lists(
        st.tuples(words, st.lists(numbers, min_size=size, max_size=size)), min_size=1, max_size=5
    )
)


@given(table=tables, form=st.sampled_from(["text", "header", "binary"]))
@few
def test_word_vectors(table, form):
    size = len(table[0][1])
    header = f"{len(table)} {size}\n".encode() if form != "text" else b""
    if form == "binary":
        rows = [w.encode() + b" " + np.array(v, "<f4").tobytes() for w, v in table]
    else:
        rows = [f"{w} {' '.join(map(repr, v))}\n".encode() for w, v in table]
    content = header + b"".join(rows)

    def read(path):
        file = vector_files.sniff(path)._replace(binary=form == "binary", dimension=size)
        return list(vector_files.read(file, None, no_log))

    found = read_back(".vec", content, read)
    assert [word for word, _ in found] == [word for word, _ in table]
    np.testing.assert_array_equal([v for _, v in found], np.array([v for _, v in table], "f4"))


@given(listed=st.lists(texts.filter(bool), unique=True, max_size=5))
@few
def test_packed_vectors(listed):
    rows = [(word, np.full(2, n, np.float32)) for n, word in enumerate(listed)]
    with tempfile.TemporaryDirectory() as folder:
        assert vector_files.write_packed(Path(folder, "0"), 2, rows, limit=9)
        found, matrix = vector_files.open_packed(Path(folder, "0"), 2)
        assert found == listed and matrix[:, 0].tolist() == list(range(len(listed)))


@given(rows=st.lists(st.binary(max_size=40), max_size=5))
@few
def test_tfrecords(rows):
    read = lambda path: list(tfrecord.read_records(path))  # noqa: E731
    assert read_back(".tfrecord", frame_records(rows), read) == rows


@given(
    labels=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20),
    names=st.lists(st.binary(max_size=300), max_size=5),
    protocol=st.sampled_from([2, 3, 4]),
)
@example(labels=[], names=[b""], protocol=2)
@few
def test_pickled_batches(labels, names, protocol):
    pixels = np.arange(3 * 4, dtype=np.uint8).reshape(3, 4)
    content = pickle.dumps({"data": pixels, b"labels": labels, "n": names}, protocol=protocol)
    found = read_pickle(content, "batch")
    assert found["labels"] == labels and found["n"] == names
    np.testing.assert_array_equal(found["data"], pixels)


@given(seed=st.integers(0, 99), form=st.sampled_from(["png", "bmp", "tiff", "gif", "webp"]))
@few
def test_images(seed, form):
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
    image = (
        Image.fromarray(pixels)
        if form == "gif"
        else Image.merge("RGB", [Image.fromarray(pixels)] * 3)
    )
    image.save(stream := io.BytesIO(), form, lossless=True)
    found = read_back(".jpg", stream.getvalue(), read_image)
    np.testing.assert_array_equal(found, np.stack([pixels] * 3, -1))


names = st.text(string.ascii_letters + "-_ ", min_size=1, max_size=8).filter(str.strip)
arms = st.dictionaries(
    names,
    st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(1, 10**6),
            "rate": st.floats(0, 100),
            "label": texts,
            "twice": st.booleans(),
        },
    ),
    min_size=1,
    max_size=3,
)


@given(question=texts.filter(str.strip), arms=arms)
@few
def test_studies(question, arms):
    content = {"question": question, "task": "toy", "arms": arms}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    study = read_back(
        ".yaml", text.encode(), lambda path: read_study(path, lambda name: TASK, ("toy",))
    )
    assert study.question == question and study.arms == arms

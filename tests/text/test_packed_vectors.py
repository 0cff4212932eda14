"""Vectors packed into a run folder, and what happens where they are too many or damaged."""

import re
from pathlib import Path

import numpy as np
import pytest

from common.errors import InputError
from text import packed_vectors
from text.embeddings import concatenate, load_vectors
from text.packed_vectors import open_packed, pack


def test_a_run_folder_alone_gives_new_words_their_vectors(write, tmp_path):
    first, _ = write(["screen", "Keys", "a\\b"], 3, name="first.vec")
    second, _ = write(["keys", "mouse"], 2, name="second.txt", header=False)
    words = ["Mouse", "a\\b", "keys", "KEYS", "nothing"]
    direct = concatenate([load_vectors(source, words) for source in (first, second)])
    pack([first, second], tmp_path / "run", [])
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    Path(first).unlink()
    Path(second).unlink()
    opened = open_packed(tmp_path / "elsewhere")
    again = opened.lookup(iter(words))
    assert opened.dimension == 5
    assert (again.name, again.words) == (direct.name, direct.words)
    np.testing.assert_array_equal(again.matrix, direct.matrix)
    np.testing.assert_array_equal(again.found, direct.found)
    assert again.matrix.dtype == np.float32


def test_packing_nothing_finds_nothing(tmp_path):
    pack([], tmp_path / "run", ["the"])
    opened = open_packed(tmp_path / "run")
    vectors = opened.lookup(["the", "screen"])
    assert opened.dimension == 0 and vectors.matrix.shape == (2, 0) and not vectors.found.any()


def pack_too_large(write, tmp_path, monkeypatch, header):
    """A source of 3 x 4 numbers and one of 2 x 2, packed where 23 bytes are allowed."""
    large, known = write(["screen", "keys", "mouse"], 4, name="large.vec", header=header)
    small, _ = write(["screen", "keys"], 2, name="small.vec")
    monkeypatch.setattr(packed_vectors, "PACK_LIMIT", 23)
    log: list[str] = []
    pack([large, small], tmp_path / "run", ["Screen", "absent"], log=log.append)
    names = sorted(file.name for file in (tmp_path / "run").iterdir())
    assert names == ["0.npy", "0.words.txt", "1.npy", "1.words.txt", "sources.json"]
    assert (tmp_path / "run" / "0.words.txt").read_text() == "screen\n"
    assert len(log) == 1 and "large.vec has more than" in log[0] and large in log[0]
    return Path(large), known


@pytest.mark.parametrize("header", [True, False])
def test_a_source_above_the_limit_is_read_where_it_was(write, tmp_path, monkeypatch, header):
    _, known = pack_too_large(write, tmp_path, monkeypatch, header)
    log: list[str] = []
    opened = open_packed(tmp_path / "run", log=log.append)
    for _ in range(2):
        vectors = opened.lookup(["Mouse", "nothing", "Screen", ""])
        assert log == [] and opened.dimension == 6
        np.testing.assert_array_equal(vectors.matrix[0], [*known["mouse"], 0, 0])
        np.testing.assert_array_equal(vectors.matrix[2, :4], known["screen"])
        assert vectors.found.tolist() == [True, False, True, False]
        monkeypatch.setattr(packed_vectors, "load_vectors", None)  # the file is read once


def test_a_source_above_the_limit_that_is_gone(write, tmp_path, monkeypatch):
    large, _ = pack_too_large(write, tmp_path, monkeypatch, True)
    large.unlink()
    log: list[str] = []
    vectors = open_packed(tmp_path / "run", log=log.append).lookup(["mouse", "keys", "screen"])
    assert len(log) == 1 and f"{large} is not on this machine" in log[0]
    assert vectors.matrix.shape == (3, 6) and not vectors.matrix[:2, :4].any()
    assert vectors.matrix[2, :4].all(), "the run keeps the vectors of its own words"
    assert vectors.found.tolist() == [False, True, True]


def test_a_source_above_the_limit_that_has_changed(write, tmp_path, monkeypatch):
    large, _ = pack_too_large(write, tmp_path, monkeypatch, True)
    write(["screen", "keys"], 3, name=large.name)
    opened = open_packed(tmp_path / "run")
    with pytest.raises(InputError, match=rf"{re.escape(str(large))} has 3 numbers a word.* 4:"):
        opened.lookup(["mouse"])


@pytest.mark.parametrize("content", [None, "", "[{"])
def test_a_folder_without_packed_vectors(tmp_path, content):
    if content is not None:
        (tmp_path / "sources.json").write_text(content)
    with pytest.raises(InputError, match="sources.json cannot be read"):
        open_packed(tmp_path)


def test_an_interrupted_packing_is_not_taken_for_a_complete_one(write, tmp_path):
    source, _ = write(["screen", "keys"], 3)
    pack([source], tmp_path / "run", [])
    with pytest.raises(InputError, match="no such file"):
        pack([source, str(tmp_path / "absent")], tmp_path / "run", [])
    with pytest.raises(InputError, match="sources.json cannot be read"):
        open_packed(tmp_path / "run")

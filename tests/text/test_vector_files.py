"""Files of word vectors: every format, ragged, cut off, and not vectors at all."""

import gzip
import os
import tracemalloc

import numpy as np
import pytest

from common.errors import InputError
from text import vector_files
from text.vector_files import open_packed, read, sniff, write_packed

WORDS = ("the", "Screen", "屏幕", "#", "3", "naïve")
DIMENSION = 7
MATRIX = np.random.default_rng(4).normal(size=(len(WORDS), DIMENSION)).astype(np.float32)


def numbers(vector, separator=" "):
    return separator.join(repr(float(value)) for value in vector)


def binary(words, matrix, end=b""):
    rows = (w.encode() + b" " + v.tobytes() + end for w, v in zip(words, matrix, strict=True))
    return f"{len(words)} {matrix.shape[1]}\n".encode() + b"".join(rows)


def text(words, matrix, *, header=False, end="\n", separator=" "):
    rows = [w + separator + numbers(v, separator) for w, v in zip(words, matrix, strict=True)]
    first = [f"{len(words)} {matrix.shape[1]}"] if header else []
    return "".join(row + end for row in first + rows).encode()


FORMATS = {
    "gensim binary": binary(WORDS, MATRIX),
    "word2vec binary": binary(WORDS, MATRIX, b"\n"),
    "word2vec text": text(WORDS, MATRIX, header=True),
    "GloVe": text(WORDS, MATRIX),
    "GloVe without the last newline": text(WORDS, MATRIX)[:-1],
    "fastText": text(WORDS, MATRIX, header=True, end=" \n"),
    "Windows": text(WORDS, MATRIX, header=True, end="\r\n"),
    "tabs": text(WORDS, MATRIX, separator="\t"),
}


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="vectors.dat"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write_file


def read_all(path, wanted=None):
    """The words, the matrix and the log of a file that is sniffed and read."""
    lines: list[str] = []
    rows = list(read(sniff(path), wanted, lines.append))
    return tuple(word for word, _ in rows), np.array([vector for _, vector in rows]), lines


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_told_by_its_content(write, name, pack):
    words, matrix, lines = read_all(write(pack(FORMATS[name])))
    assert words == WORDS and lines == []
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, MATRIX)


@pytest.mark.parametrize("name", FORMATS)
def test_only_the_wanted_words_come(write, name):
    words, matrix, _ = read_all(write(FORMATS[name]), {"#", "the", "absent"})
    assert words == ("the", "#")
    np.testing.assert_array_equal(matrix, MATRIX[[0, 3]])


@pytest.mark.parametrize("block", [10, 16, 41])
def test_binary_words_across_blocks(write, monkeypatch, block):
    monkeypatch.setattr(vector_files, "_BLOCK", block)
    words, matrix, _ = read_all(write(FORMATS["word2vec binary"]))
    assert words == WORDS
    np.testing.assert_array_equal(matrix, MATRIX)


@pytest.mark.parametrize("kind", ["binary", "text"])
def test_memory_holds_only_what_is_wanted(write, monkeypatch, kind):
    monkeypatch.setattr(vector_files, "_BLOCK", 1 << 14)
    monkeypatch.setattr(vector_files, "_PEEK", 1 << 14)
    words = [f"w{number}" for number in range(3000)]
    matrix = np.arange(3000 * 50, dtype=np.float32).reshape(3000, 50)
    content = binary(words, matrix) if kind == "binary" else text(words, matrix)
    path = write(content)
    assert len(content) > 600_000
    tracemalloc.start()
    found, vectors, _ = read_all(path, {"w7", "w2999"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ("w7", "w2999")
    np.testing.assert_array_equal(vectors, matrix[[7, 2999]])
    assert peak < 200_000


def test_ragged_lines_are_counted_and_left_out(write):
    lines = [
        *text(WORDS, MATRIX, header=True).decode().splitlines(),
        "",
        f"short {numbers(MATRIX[0, 1:])}",
        f". . . {numbers(MATRIX[1])}",
        f"letters {numbers(MATRIX[0, 1:])} x",
        f"endless {numbers(MATRIX[0, 1:])} nan",
        f"huge {numbers(MATRIX[0, 1:])} 1e60",
        f" {numbers(MATRIX[0])}",
        f"last {numbers(MATRIX[2])}",
    ]
    path = write("\n".join(lines).encode())
    words, matrix, log = read_all(path)
    assert words == (*WORDS, ". . .", "last")
    np.testing.assert_array_equal(matrix, np.concatenate([MATRIX, MATRIX[[1, 2]]]))
    assert len(log) == 1
    assert f"{path}: left out 6 lines" in log[0] and "7 finite float32 numbers" in log[0]
    assert "the first is line 8" in log[0]


def test_a_blank_or_short_first_line_does_not_hide_the_rest(write):
    content = b"\nshort 0.5\n" + FORMATS["GloVe"]
    words, _, log = read_all(write(content))
    assert words == WORDS and "left out 2 lines" in log[0]


def test_vectors_that_are_not_finite_are_left_out_of_a_binary_file(write):
    matrix = MATRIX.copy()
    matrix[1, 3], matrix[4, 0] = np.nan, np.inf
    words, _, log = read_all(write(binary(WORDS, matrix)))
    assert words == ("the", "屏幕", "#", "naïve")
    assert "left out 2 words" in log[0] and "the first is word 2" in log[0]


def test_words_that_are_not_utf8_do_not_stop_the_reading(write):
    content = FORMATS["word2vec binary"].replace("naïve".encode(), "naïve".encode("latin-1"))
    assert read_all(write(content))[0] == (*WORDS[:-1], "na\ufffdve")


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("left, whole", [(1, 0), (9, 0), (33, 1), (100, 2), (-2, 5)])
def test_a_binary_file_that_is_cut_off(write, end, left, whole):
    content = binary(WORDS, MATRIX, end)
    header = content.index(b"\n") + 1
    path = write(content[: header + left] if left > 0 else content[: left - len(end)])
    with pytest.raises(InputError, match=f"ends after {whole} of 6 words") as caught:
        read_all(path)
    assert str(path) in str(caught.value) and "copy it again" in str(caught.value)


@pytest.mark.parametrize("header", [b"5 7\n", b"6 6\n"])
def test_a_binary_file_with_more_than_its_header_promises(write, header):
    path = write(FORMATS["gensim binary"].replace(b"6 7\n", header))
    with pytest.raises(InputError, match=r"goes on after the [56] words of [67] numbers"):
        read_all(path)


@pytest.mark.parametrize("name", ["gensim binary", "GloVe"])
def test_a_gzipped_file_that_is_cut_off(write, name):
    path = write(gzip.compress(FORMATS[name])[:-12])
    with pytest.raises(InputError, match="damaged or cut off"):
        read_all(path)


def test_a_text_file_with_fewer_words_than_its_header(write):
    content = text(WORDS, MATRIX, header=True).replace(b"6 7\n", b"1200 7\n")
    words, _, log = read_all(write(content))
    assert words == WORDS
    assert "line 1 says 1,200 words, but 6 lines follow" in log[0]


@pytest.mark.parametrize(
    "content, part",
    [
        (b"", "holds no word vectors"),
        (b"\n\n", "holds no word vectors"),
        (b"0 7\n", "holds no word vectors"),
        (b"I bought 3 of them.\nThey were 2 for 1\nGood 10 20 30\nNice\n", "holds no word vectors"),
        (b"I O\nlike O\nscreens B-ASP\n", "holds no word vectors"),
        (bytes(range(256)) * 2000, "holds no word vectors"),
        (b"PK\x03\x04 and so on", "is a zip archive: unpack it"),
        (b"\xba\x16\x4f\x2f and so on", "is a fastText model: give the .vec"),
        (b"\x80\x04\x95 and so on", "is a pickle, which is never read"),
        (text(WORDS, MATRIX, header=True).replace(b"6 7", b"6 5"), "line 1 says 5 .* have 7"),
    ],
)
def test_what_is_no_file_of_vectors(write, content, part):
    path = write(content)
    with pytest.raises(InputError, match=part) as caught:
        sniff(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name, part", [("absent", "no such file"), ("", "cannot be read")])
def test_the_message_for_a_wrong_path_says_what_is_taken(tmp_path, name, part):
    with pytest.raises(InputError, match=f"{part}.*--embeddings takes glove, .*fastText"):
        sniff(tmp_path / name)


@pytest.mark.parametrize("count", [1, 6])
def test_packed_files_round_trip(tmp_path, count):
    words = ["a\\b", "a\nb", "\\n", "\\", "\\\n\\n", "\u2028\r屏"][:count]
    assert write_packed(tmp_path / "0", DIMENSION, zip(words, MATRIX, strict=False), 6)
    again, matrix = open_packed(tmp_path / "0", DIMENSION)
    assert again == words
    assert matrix.dtype == np.float16 and isinstance(matrix.base, np.memmap)
    np.testing.assert_array_equal(matrix, MATRIX[:count].astype(np.float16))


def test_nothing_is_left_above_the_limit(tmp_path):
    rows = zip(WORDS, MATRIX, strict=True)
    assert not write_packed(tmp_path / "0", DIMENSION, rows, len(WORDS) - 1)
    assert list(tmp_path.iterdir()) == []


def test_a_large_count_keeps_the_length_of_the_header(tmp_path):
    rows = ((str(number), MATRIX[number % 6]) for number in range(12_345))
    assert write_packed(tmp_path / "0", DIMENSION, rows, 20_000)
    words, matrix = open_packed(tmp_path / "0", DIMENSION)
    assert len(words) == 12_345 and matrix.shape == (12_345, DIMENSION)
    np.testing.assert_array_equal(matrix[-1], MATRIX[12_344 % 6].astype(np.float16))


@pytest.mark.parametrize(
    "damage, part",
    [
        (lambda files: files[0].unlink(), "missing or damaged"),
        (lambda files: files[1].unlink(), "missing or damaged"),
        (lambda files: files[0].write_bytes(b""), "missing or damaged"),
        (lambda files: files[0].write_bytes(files[0].read_bytes()[:-2]), "missing or damaged"),
        (lambda files: files[1].write_bytes(b"the\n"), "do not belong together"),
    ],
)
def test_damaged_packed_files(tmp_path, damage, part):
    write_packed(tmp_path / "0", DIMENSION, zip(WORDS, MATRIX, strict=True), 6)
    damage((tmp_path / "0.npy", tmp_path / "0.words.txt"))
    with pytest.raises(InputError, match=part) as caught:
        open_packed(tmp_path / "0", DIMENSION)
    assert str(tmp_path / "0.npy") in str(caught.value)


def test_a_line_without_end_takes_no_memory(tmp_path):
    path = tmp_path / "a.vec"
    path.write_bytes(b"a 1 2 3\n" * 99 + b"1 " * (1 << 24) + b"\nb 4 5 6\n")
    lines = []
    tracemalloc.start()
    found = [word for word, _ in vector_files.read(vector_files.sniff(path), None, lines.append)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ["a"] * 99 + ["b"] and "the first is line 100" in lines[0]
    assert peak < 4 << 20


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.vec")
    with pytest.raises(InputError, match="pipe.vec cannot be read: it is no regular file"):
        vector_files.sniff(tmp_path / "pipe.vec")

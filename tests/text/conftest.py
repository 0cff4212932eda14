"""Files of word vectors, written for a test."""

import numpy as np
import pytest


def make_matrix(words, dimension):
    """Vectors that differ from word to word, float16 values so that packing is exact."""
    matrix = np.random.default_rng(len(words) + dimension).normal(size=(len(words), dimension))
    return matrix.astype(np.float16).astype(np.float32)


@pytest.fixture
def write(tmp_path):
    def write_file(words, dimension, *, name="some.vec", header=True):
        matrix = make_matrix(words, dimension)
        lines = [f"{len(words)} {dimension}"] if header else []
        lines += [f"{w} {' '.join(map(str, v))}" for w, v in zip(words, matrix, strict=True)]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        return str(tmp_path / name), dict(zip(words, matrix, strict=True))

    return write_file

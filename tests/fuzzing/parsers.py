"""Every parser of the house in one form: some valid files, and a function that reads one.

Reading gives something or raises InputError; anything else is a finding. What was read must be of
use, too: the functions assert what the rest of the program relies on.
"""

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from common import config as configs
from common.errors import InputError
from common.run_folder import load_inputs
from common.study_file import read_study
from common.together import read_runs
from tests.common.study_cases import TASK
from tests.fuzzing import seeds
from text import config as text_config
from text import corpus_files, packed_vectors, vector_files
from text.tokenizers import words
from text.vocab import Characters, Vocabulary
from vision import array_cache, cifar_archives, cifar_pickle, tfds_folder, tfrecord
from vision import config as vision_config
from vision.arrays import Arrays
from vision.evaluate import checked_inputs
from vision.image_folder import read_image


class Parser(NamedTuple):
    """A parser under test.

    Attributes:
        seeds: makes some valid files.
        read: reads one, given its content and an empty folder to put it in.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], Any]


def message_of(parser: Parser, content: bytes, folder: Path) -> str | None:
    """What the user reads of a file that is refused, None if it is read; a finding is raised."""
    try:
        parser.read(content, folder)
    except InputError as error:
        message = str(error)
        assert message.isprintable() and len(message) < 2000, f"no clean line: {message!r}"
        return message
    return None


def _put(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _silent(line: str) -> None:
    assert "\n" not in line, line


def read_any_image(content: bytes, folder: Path) -> np.ndarray:
    image = read_image(_put(folder, "image.png", content))
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    return image


def read_tar(content: bytes, folder: Path) -> Arrays | None:
    """The content as a .tar.gz; a mutated .gz seldom gets past its checksum, so tars are packed."""
    gzipped = content.startswith(b"\x1f\x8b")
    path = _put(folder, "a.tar.gz", content if gzipped else gzip.compress(content, 1))
    with mock.patch.multiple(cifar_archives, TRAIN_ROWS=5, TEST_ROWS=1, MAX_UNPACKED=1 << 20):
        source = cifar_archives.find("cifar10", path)
        return source.read() if source else None


def read_tfds(name: str, content: bytes, folder: Path) -> Arrays | None:
    """A prepared data set of which one file has this content."""
    for other, usual in seeds.tfds_files().items():
        _put(folder, other, usual)
    _put(folder, name, content)
    source = tfds_folder.find("cifar10", folder)
    return source.read() if source else None


def read_corpus(form: str, content: bytes, folder: Path) -> Any:
    path = _put(folder, f"corpus.{form}", content)
    reading = corpus_files.read(path, log=_silent, plain=True)
    for sentence in reading.sentences:
        sentence.text.encode()
        places = [place for token in words(sentence.text) for place in token]
        assert places == sorted(places)
        for start, end in sentence.spans:
            assert 0 <= start < end <= len(sentence.text)
    return reading


def read_vectors(content: bytes, folder: Path) -> list[tuple[str, np.ndarray]]:
    file = vector_files.sniff(_put(folder, "some.vec", content))
    found = list(vector_files.read(file, None, _silent))
    assert all(v.shape == (file.dimension,) and np.isfinite(v).all() for _, v in found)
    return found


def read_packed(name: str, content: bytes, folder: Path) -> Any:
    for other in ("sources.json", "0.words.txt", "0.npy"):
        _put(folder, other, seeds.packed(other)[0])
    _put(folder, name, content)
    return packed_vectors.open_packed(folder, log=_silent).lookup(("a", "x", "b\n"))


def read_own_study(content: bytes, folder: Path) -> Any:
    return read_study(_put(folder, "mine.yaml", content), lambda name: TASK, ("toy",))


def read_listed(content: bytes, folder: Path) -> Any:
    runs = read_runs(_put(folder, "seed0.together.json", content), text_config.TextConfig)
    return [text_config.make_config(run["settings"]) for run in runs]


def read_configuration(content: bytes, folder: Path) -> Any:
    path = _put(folder, "config.json", content)
    module = text_config if b'"aspect"' in content else vision_config
    kind = text_config.TextConfig if module is text_config else vision_config.VisionConfig
    config = configs.load(kind, path)
    module.check_config(config)
    return config


def read_inputs(content: bytes, folder: Path) -> Any:
    path = _put(folder, "inputs.json", content)
    if b"words" in content:
        found = load_inputs(folder, ("words", "characters"))
        return Vocabulary.from_json(found["words"]), Characters.from_json(found["characters"])
    return checked_inputs(load_inputs(folder, ("classes", "mean", "std")), path)


def read_cached(name: str, content: bytes, folder: Path) -> Any:
    parts = [f"{split}_{part}.npy" for split in ("train", "test") for part in ("images", "labels")]
    for other in ("info.json", *parts):
        _put(folder, other, seeds.cached(other)[0])
    _put(folder, name, content)
    return array_cache.read(folder, "x", _silent)


def _whole(read: Callable[[Path], Any], name: str, content: bytes, folder: Path) -> Any:
    return list(read(_put(folder, name, content)))


PARSERS = {
    "image": Parser(seeds.images, read_any_image),
    "cifar_pickle": Parser(
        seeds.pickles, lambda content, _: cifar_pickle.read_pickle(content, "batch")
    ),
    "cifar_archive": Parser(seeds.tars, read_tar),
    "tfrecord": Parser(seeds.records, partial(_whole, tfrecord.read_records, "a.tfrecord")),
    **{
        f"tfds_{file.partition('.')[0]}": Parser(
            lambda file=file: [seeds.tfds_files()[file]], partial(read_tfds, file)
        )
        for file in ("dataset_info.json", "features.json", "cifar10-test.tfrecord-00000-of-00002")
    },
    **{
        f"corpus_{form}": Parser(partial(seeds.corpora, form), partial(read_corpus, form))
        for form in ("xml", "conll", "jsonl", "txt")
    },
    "vectors": Parser(seeds.vectors, read_vectors),
    **{
        f"packed_{name.partition('.')[0]}{name[-4:]}": Parser(
            partial(seeds.packed, name), partial(read_packed, name)
        )
        for name in ("sources.json", "0.words.txt", "0.npy")
    },
    "study": Parser(seeds.studies, read_own_study),
    "together": Parser(seeds.listed_runs, read_listed),
    "config": Parser(seeds.configurations, read_configuration),
    "inputs": Parser(seeds.inputs, read_inputs),
    "cache_info": Parser(partial(seeds.cached, "info.json"), partial(read_cached, "info.json")),
    "cache_npy": Parser(
        partial(seeds.cached, "test_labels.npy"), partial(read_cached, "test_labels.npy")
    ),
}

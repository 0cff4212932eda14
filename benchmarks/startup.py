"""How long until something happens? The help, the first training step, and the data.

    python -m benchmarks.startup

A first step is timed from the start of a process of `launch.py` to the end of that step. As a
user has it who changes a model, the decoded images are in the array cache (vision/array_cache.py)
and programs are compiled anew; beside it with every cache empty (once), and with the compilation
cache filled (common/program_cache.py), as on a second start.
PyTorch's process imports it, reads the same cached digits, and trains the same network one step
of as many images. Loading is timed inside a fresh process; the system's own cache of files is
warm.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.process import ROOT, call, time_python
from benchmarks.report import Question, Row, show_all

ROUNDS = 3
FIRST_STEP = 10  # the exit status that says that the first step was made
TASKS = {
    # In float32 as PyTorch's twin, whatever the processor would make "auto" choose.
    "cnn on digits": ("--task=cifar", "--dataset=digits", "--model=cnn", "--precision=float32"),
    "BiLSTM-CRF on the embedded reviews": ("--task=aspect", "--crf"),
}
TORCH = "cnn on digits"  # of which there is a twin
TORCH_BATCH = 64  # as of --dataset=digits
DATA = ROOT.parent / "shared" / "data"
CIFAR10, LAPTOP14 = DATA / "tfds", DATA / "semeval" / "laptop14"
VECTORS = DATA / "embeddings" / "laptop.domain.100d.bin"


def first_step(*arguments: str) -> None:
    """Run launch.py with these arguments, and end the process after the first training step."""
    import runpy

    from common import loop

    class FirstStep(loop.EpochBar):
        def step(self, *_: object) -> None:
            os._exit(FIRST_STEP)

    sys.argv = ["launch.py", *arguments]
    with mock.patch.object(loop, "EpochBar", FirstStep), mock.patch.object(loop, "LAG", 0):
        runpy.run_path("launch.py", run_name="__main__")


def torch_first_step() -> None:
    """The same in PyTorch: the imports, the digits, the network, a step."""
    import numpy as np

    from benchmarks import torch_steps
    from vision import datasets

    digits = datasets.load("digits", log=lambda line: None)
    rows = slice(TORCH_BATCH)
    images = (digits.train.images[rows] / np.float32(255.0) - digits.mean) / digits.std
    labels = digits.train.labels[rows].astype(np.int64)
    torch_steps.ClassifierStep(torch_steps.NETWORKS["cnn"](), images, labels)()


def seconds_to_first_step(arguments: tuple[str, ...], environment: Mapping[str, str]) -> float:
    """Of a new run in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        code = "import sys; from benchmarks.startup import first_step; first_step(*sys.argv[1:])"
        command = ["-c", code, *arguments, "--epochs=1", f"--workdir={folder}/run"]
        return time_python(command, environment=environment, status=FIRST_STEP)


def first_step_row(name: str, arguments: tuple[str, ...]) -> Row:
    """One task with every cache empty, once, then as it is and filled, in interleaved rounds."""
    with tempfile.TemporaryDirectory() as caches:
        arrays = {"ATHANOR_CACHE": f"{caches}/arrays"}
        compiled = arrays | {"JAX_COMPILATION_CACHE_DIR": f"{caches}/programs"}
        anew = arrays | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
        empty = seconds_to_first_step(arguments, compiled)  # it fills the caches
        sides = {"athanor": lambda: seconds_to_first_step(arguments, anew)}
        if name == TORCH:
            code = "from benchmarks.startup import torch_first_step; torch_first_step()"
            sides["PyTorch"] = lambda: time_python(["-c", code], environment=arrays)
        sides["compilation cache filled"] = lambda: seconds_to_first_step(arguments, compiled)
        rounds = [{side: measure() for side, measure in sides.items()} for _ in range(ROUNDS)]
    medians = {side: statistics.median(found[side] for found in rounds) for side in sides}
    return Row(name, medians | {"every cache empty": empty}, "s")


def help_row() -> Row:
    """The help, beside what Python takes to start and to import PyTorch."""
    commands = {
        "athanor": ["launch.py", "--help"],
        "an empty Python": ["-c", ""],
        "import torch": ["-c", "import torch"],
    }
    times = {
        name: statistics.median(time_python(command) for _ in range(ROUNDS))
        for name, command in commands.items()
    }
    return Row("launch.py --help", times, "s")


def _timed(load: Callable[[], Any]) -> float:
    start = time.perf_counter()
    load()
    return time.perf_counter() - start


def load_images(name: str, data_dir: str | None) -> float:
    """Seconds of loading a data set, from ATHANOR_CACHE if it is there."""
    from vision import datasets

    return _timed(lambda: datasets.load(name, data_dir=data_dir, log=lambda line: None))


def load_sentences(data_dir: str | None) -> float:
    """Seconds of reading a corpus."""
    from text import corpora

    return _timed(lambda: corpora.load(data_dir=data_dir, log=lambda line: None))


def load_vectors(source: str, folder: str, packed: bool) -> float:
    """Seconds of looking up the words of the embedded reviews: in the source, or packed by then."""
    from text import corpora, embeddings, packed_vectors, tokenizers

    corpus, split = corpora.load(log=lambda line: None), tokenizers.TOKENIZERS["words"]
    texts = [sentence.text for part in (corpus.train, corpus.test) for sentence in part]
    words = sorted({text[start:end] for text in texts for start, end in split(text)})
    if packed:
        return _timed(lambda: packed_vectors.open_packed(Path(folder)).lookup(words))
    seconds = _timed(lambda: embeddings.load_vectors(source, words))
    packed_vectors.pack([source], Path(folder), words)
    return seconds


def loading_rows() -> list[Row]:
    """Every kind of data that is at hand, again as a second run reads it and as the first did."""
    rows = []
    images = {"digits": None} | ({"cifar10": str(CIFAR10)} if CIFAR10.is_dir() else {})
    vectors = ["glove", *([str(VECTORS)] if VECTORS.is_file() else [])]
    with tempfile.TemporaryDirectory() as caches:
        environment = {"ATHANOR_CACHE": caches}

        def load(function: str, *arguments: Any) -> float:
            return call(f"benchmarks.startup:{function}", *arguments, environment=environment).value

        for name, data_dir in images.items():
            first = load("load_images", name, data_dir)
            again = statistics.median(load("load_images", name, data_dir) for _ in range(ROUNDS))
            rows.append(Row(name, {"again": again, "first time": first}, "ms"))
        for number, source in enumerate(vectors):
            folder = f"{caches}/vectors{number}"
            first = load("load_vectors", source, folder, False)
            again = load("load_vectors", source, folder, True)
            case = f"vectors of the embedded reviews' words, {Path(source).name}"
            rows.append(Row(case, {"again": again, "first time": first}, "ms"))
        for name, path in {"embedded reviews": None, "laptop14": LAPTOP14}.items():
            if path is None or path.is_dir():
                seconds = load("load_sentences", path and str(path))
                rows.append(Row(name, {"again": seconds}, "ms", "read anew by every run"))
    return rows


def question() -> Question:
    """What is timed."""
    return {
        "help": lambda: [help_row()],
        "from the start of a process to the end of its first training step": lambda: [
            first_step_row(*task) for task in TASKS.items()
        ],
        "loading data": loading_rows,
    }


if __name__ == "__main__":
    show_all(question())

"""How fast is a tagger? A training epoch and a prediction pass, against packed nn.LSTM.

    python -m benchmarks tagger [--data_dir=FOLDER] [--embeddings=...]

One bidirectional LSTM, dropout, a CRF, Adam with clipping, frozen vectors (GloVe). Both sides
train on the same sentences in the same batches, each in a process of its own; PyTorch's are cut to
their own longest sentence and packed, ours padded to one of four widths, of wide layers six, of
which loops over time on a CPU make the steps to the longest sentence. Batches are of similar
lengths, which spares both sides padding. Where a batch is large and there are two cores, a third
side is ours with `--devices=2`, half of a batch on each, but not of wide layers, which take as long
so. Wide ones, to which `--precision=auto` may give bfloat16, are timed in that too where the
processor multiplies it, PyTorch's by autocast and, as it does by itself, in float32. A loss is
compared, with PyTorch's in float32, before anything is timed. Every side does each once untimed,
which compiles ours; a first epoch of PyTorch's takes up to a quarter longer than later ones, too.
Ours is timed with all it does on the host. What takes more than ten seconds is then timed once,
other epochs and passes in three interleaved rounds.
"""

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.device import find_device, precisions
from benchmarks.process import ROOT
from benchmarks.report import Question, Row, show_all
from benchmarks.sides import Side, start, time_operation
from common.host import cores
from text.extractor import WIDE_UNITS

HIDDEN = (32, 128, 512)
BATCHES = (64, 16)
LAPTOP14 = ROOT.parent / "shared" / "data" / "semeval" / "laptop14"
OPERATIONS = ("training epoch", "prediction pass")
SLOW_SECONDS = 10.0
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2}  # of the first loss
PEER = "packed nn.LSTM + pytorch-crf"
# A CPU's devices of the third side, and the batch from which on there is one.
DEVICES, DIVIDED_BATCH = 2, 64


def compare(
    data_dir: str | None,
    embeddings: str,
    hidden: int,
    batch_size: int,
    precision: str,
    platform: str,
) -> list[Row]:
    """Both operations at one size.

    Raises:
        AssertionError: the sides have other losses of the same weights.
    """
    maker = ("benchmarks.our_tagger:calls", data_dir, embeddings, hidden, batch_size, precision)
    enough = platform == "cpu" and len(cores()) >= DEVICES
    divides = enough and batch_size >= DIVIDED_BATCH and hidden < WIDE_UNITS
    divided = {f"athanor, devices={DEVICES}": (*maker, DEVICES)} if divides else {}
    with Side(*maker) as ours:
        problem, parameters, loss = (ours.call(name) for name in ("problem", "parameters", "loss"))
        peer = ("benchmarks.torch_tagger:calls", problem, hidden)
        peers = {PEER: (*peer, precision)}
        if precision != "float32":
            peers[f"{PEER}, float32"] = (*peer, "float32")
        with start(peers) as theirs, start(divided) as more:
            tolerance = TOLERANCES["bfloat16" if platform == "gpu" else precision]
            for side in theirs.values():
                side.call("load", parameters)
                np.testing.assert_allclose(loss, side.call("loss"), rtol=tolerance)
            for side in more.values():
                np.testing.assert_allclose(loss, side.call("loss"), rtol=TOLERANCES[precision])
            sides = {"athanor": ours, **theirs, **more}
            return [time_row(name, sides) for name in OPERATIONS]


def time_row(operation: str, sides: dict[str, Side]) -> Row:
    """The seconds of an operation of each side, warm."""
    for side in sides.values():
        side.timer(operation)(1)
    return Row(operation, time_operation(sides, operation, rounds=3, slow_seconds=SLOW_SECONDS))


def find_corpus(data_dir: str | None) -> str | None:
    """The corpus given; without, laptop14 where it is at hand, else None, the embedded reviews."""
    return data_dir or (str(LAPTOP14) if LAPTOP14.is_dir() else None)


def question(data_dir: str | None = None, embeddings: str = "glove") -> Question:
    """What is timed.

    Args:
        data_dir: see `find_corpus`.
        embeddings: as launch.py's flag.
    """
    platform, corpus = find_device(), find_corpus(data_dir)
    name = Path(corpus).name if corpus else "embedded reviews"
    tables = {}
    for batch_size in BATCHES:
        for hidden in HIDDEN:
            for precision in precisions() if hidden >= WIDE_UNITS else ("float32",):
                title = f"{name}, hidden {hidden}, batch {batch_size}, {precision}"
                tables[title] = partial(
                    compare, corpus, embeddings, hidden, batch_size, precision, platform
                )
    return tables


if __name__ == "__main__":
    show_all(question())

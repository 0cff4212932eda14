"""How fast is it on a GPU? Cases of the other questions, against PyTorch there.

    python -m benchmarks gpu --json=runs/bench-gpu.json

The networks compute in bfloat16, which `--precision=auto` chooses on such a card; PyTorch's by
autocast, a tagger's in float32 too, without `torch.compile`. Both sides' float32 products are of
TensorFloat-32.
"""

from collections.abc import Callable, Sequence
from functools import partial

from benchmarks import cifar_time_to_accuracy, classifier, crf, tagger
from benchmarks.device import find_device
from benchmarks.report import Question, Row, show_all

SHAPES = ((64, 80, 3), (16, 1024, 3))
HIDDEN, BATCH = (128, 512), 64  # of the tagger


def question(data_dir: str | None = None, embeddings: str = "glove") -> Question:
    """What is timed.

    Args:
        data_dir: the tagger's corpus, as `tagger.main` has it.
        embeddings: the tagger's word vectors, as launch.py's flag.

    Raises:
        SystemExit: there is no GPU that both libraries use.
    """
    if (platform := find_device()) == "cpu":
        raise SystemExit("benchmarks gpu: neither jax nor torch finds a GPU")
    tables: dict[str, Callable[[], Sequence[Row]]] = {
        f"{name}, batch {classifier.BATCH}, bfloat16": partial(
            classifier.compare, name, "bfloat16", platform
        )
        for name in classifier.NAMES
    }
    tables[cifar_time_to_accuracy.TITLE] = lambda: [cifar_time_to_accuracy.compare("bfloat16")]
    tables |= {
        "CRF, B {}, T {}, K {}".format(*shape): partial(crf.compare, *shape, platform)
        for shape in SHAPES
    }
    corpus = tagger.find_corpus(data_dir)
    return tables | {
        f"tagger, hidden {hidden}, batch {BATCH}, bfloat16": partial(
            tagger.compare, corpus, embeddings, hidden, BATCH, "bfloat16", platform
        )
        for hidden in HIDDEN
    }


if __name__ == "__main__":
    show_all(question())

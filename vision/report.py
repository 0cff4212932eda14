"""What a finished run shows: pictures in its folder and lines on the terminal."""

from pathlib import Path
from typing import Any

import numpy as np

from common import plots
from common.writer import say
from vision import pictures, scoring
from vision.config import VisionConfig
from vision.datasets import Dataset

PICTURES = ("curves.png", "test_batches.png", "confusion.png", "mistakes.png")


def draw(
    workdir: Path,
    config: VisionConfig,
    history: list[dict[str, Any]],
    best_epoch: int,
    dataset: Dataset,
    test_logits: np.ndarray,
) -> None:
    """Write the four pictures of a run from its metrics and its test logits [N, K]; say where."""
    title = f"{config.model} on {config.dataset}"
    plots.plot_curves(workdir / "curves.png", history, best_epoch=best_epoch, title=title)
    images, labels = dataset.test
    predicted = test_logits.argmax(axis=1)
    pictures.plot_test_batches(
        workdir / "test_batches.png", predicted == labels, config.batch_size, title=title
    )
    counts = scoring.confusion(predicted, labels, len(dataset.classes))
    plots.plot_confusion(workdir / "confusion.png", counts, dataset.classes, title=title)
    probabilities = scoring.softmax(test_logits)
    pictures.plot_mistakes(
        workdir / "mistakes.png", images, labels, probabilities, dataset.classes, title=title
    )
    say(f"pictures: {', '.join(str(workdir / name) for name in PICTURES)}")
    say(f"everything else: {workdir}")


def tell(summary: dict[str, Any]) -> None:
    """Print the scores."""
    val = f"val accuracy {summary['val/accuracy']:.4f}, " if "val/accuracy" in summary else ""
    say(
        f"\n{val}test accuracy {summary['test/accuracy']:.4f}, test loss "
        f"{summary['test/loss']:.4f}, calibration error {summary['test/ece']:.4f} "
        f"(epoch {summary['best_epoch']} of {summary['epochs']})"
    )
    if "test_tta/views" in summary:
        say(
            f"with test-time augmentation --tta={summary['test_tta/views']}: test accuracy "
            f"{summary['test_tta/accuracy']:.4f}, test loss {summary['test_tta/loss']:.4f}"
        )
    say(
        f"{summary['images_per_second']:.0f} images/s, {summary['seconds']:.0f} s of training steps"
    )

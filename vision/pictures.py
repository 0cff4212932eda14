"""Pictures of a classifier's work on the test images: accuracy per batch, and the mistakes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from common.plots import BLUE, GREY, VERMILION, new_figure, save_figure, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_test_batches(
    path: str | os.PathLike, correct: np.ndarray, batch_size: int, *, title: str = ""
) -> None:
    """Write the accuracy of each test batch, with the overall one and the spread to expect.

    The band holds 95 % of the batches if every image is right with the overall probability,
    independently: batches outside it by more than chance are unlike the rest.

    Args:
      path: the PNG file to write.
      correct: bool [N], whether each test image was classified rightly, in test order.
      batch_size: images in a batch; the last batch may hold fewer.
      title: printed above the chart.

    Raises:
      ValueError: there is no image, or batch_size is not positive.

    Source: report A plots test accuracy batch by batch and overall.
    """
    save_figure(batches_figure(correct, batch_size, title), path)


def batch_accuracies(correct: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and number of images of each batch, both [ceil(N / batch_size)]."""
    correct = np.asarray(correct, dtype=bool)
    if not len(correct) or batch_size < 1:
        raise ValueError(f"no batches: {len(correct)} images in batches of {batch_size}")
    starts = np.arange(0, len(correct), batch_size)
    sizes = np.minimum(batch_size, len(correct) - starts)
    return np.add.reduceat(correct.astype(np.int64), starts) / sizes, sizes


def batches_figure(correct: np.ndarray, batch_size: int, title: str = "") -> Figure:
    """The figure of `plot_test_batches`."""
    from matplotlib.ticker import MaxNLocator
    from scipy.stats import binom

    accuracies, sizes = batch_accuracies(correct, batch_size)
    overall = float(np.mean(correct))
    batches = np.arange(1, len(sizes) + 1)
    low, high = (bound / sizes for bound in binom.interval(0.95, sizes, overall))
    figure = new_figure(9, 4.5, title)
    axes = figure.subplots()
    # Steps of the band: each batch owns the interval from half before to half after its number.
    edges = np.append(batches - 0.5, batches[-1] + 0.5)
    axes.stairs(
        high,
        edges,
        baseline=low,
        fill=True,
        color=GREY,
        alpha=0.2,
        label="95 % of batches by chance alone",
    )
    axes.axhline(
        overall,
        color=VERMILION,
        linestyle="--",
        linewidth=2,
        zorder=3,
        label=f"all images: {overall:.4f}",
    )
    axes.plot(
        batches,
        accuracies,
        color=BLUE,
        linewidth=0.6,
        marker="o",
        markersize=6 if len(batches) <= 40 else 3,
        label="one batch",
    )
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(
        max(min(low.min(), accuracies.min()) - 0.05, -0.01),
        min(max(high.max(), accuracies.max()) + 0.05, 1.01),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    last = "" if sizes[-1] == sizes[0] else f", the last {sizes[-1]}"
    axes.set_xlabel(f"test batch ({sizes[0]} images each{last})")
    axes.set_ylabel("accuracy (share of images right)")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def plot_mistakes(
    path: str | os.PathLike,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    count: int = 36,
    title: str = "",
) -> None:
    """Write the errors that the model was surest of, as images with both names.

    Args:
      path: the PNG file to write.
      images: uint8 [N, H, W, 3].
      labels: integers [N], the true classes.
      probabilities: float [N, K].
      classes: K names.
      count: how many errors to show at most.
      title: printed above the images.
    """
    save_figure(mistakes_figure(images, labels, probabilities, classes, count, title), path)


def confident_errors(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Indices of the wrongly classified examples, the surest first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def mistakes_figure(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    count: int = 36,
    title: str = "",
) -> Figure:
    """The figure of `plot_mistakes`."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    errors = confident_errors(labels, probabilities)
    shown = errors[:count]
    heading = f"{len(errors):,} of {len(labels):,} images wrong"
    if len(shown) < len(errors):
        heading += f"; the {len(shown)} surest"
    heading = f"{title}\n{heading}" if title else heading
    if not len(shown):
        figure = new_figure(5, 2, heading)
        figure.text(0.5, 0.4, "no mistakes to show", ha="center", color=GREY)
        return figure
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    figure = new_figure(max(1.55 * columns + 0.2, 5.0), 2.0 * rows + 0.7, heading)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, index in zip(panels, shown, strict=False):
        predicted = probabilities[index].argmax()
        axes.imshow(images[index], interpolation="nearest")
        axes.set_title(
            f"true: {shorten(classes[labels[index]], 16)}\n"
            f"said: {shorten(classes[predicted], 16)}\n"
            f"sure: {100 * probabilities[index, predicted]:.1f} %",
            fontsize=8,
            loc="left",
            parse_math=False,
        )
    return figure

"""Pictures that every task draws: curves over epochs and the confusion matrix.

matplotlib is imported inside the functions, so that importing a task stays quick, and only
`matplotlib.figure.Figure` is used: pyplot, its backend and its open figures are the caller's.
Each picture is built by a `..._figure` function, which tests inspect, and written by `plot_...`.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# From the palette of Okabe and Ito (2008), which the common forms of colour blindness tell apart;
# line styles and markers repeat every distinction, so that a grey print can be read too.
BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#595959"
DOTS_PER_INCH = 150


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure with constrained layout, in inches, known to no pyplot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    if title:
        figure.suptitle(title, parse_math=False)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write `figure` to `path` as PNG."""
    with warnings.catch_warnings():
        # A class may be named in a script that the font lacks; a box in the picture is enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, format="png")


def shorten(name: str, length: int) -> str:
    """`name` in at most `length` characters, with an ellipsis where it was cut."""
    return name if len(name) <= length else name[: length - 1] + "…"


def plot_curves(
    path: str | os.PathLike,
    history: Sequence[dict],
    *,
    metrics: Sequence[tuple[str, str]] = (("loss", "loss"), ("accuracy", "accuracy")),
    best_epoch: int | None = None,
    title: str = "",
) -> None:
    """Write the curves of training and validation over the epochs, a panel per metric.

    Args:
      path: the PNG file to write.
      history: a row per epoch: "epoch" (from 1) and any of "train/NAME" and "val/NAME"; a key
        may be absent, as "val/..." is without a validation split.
      metrics: (NAME, label of the axis with its unit) of each panel, left to right.
      best_epoch: the selected epoch, marked by a vertical line.
      title: printed above the panels.

    Source: both reports show loss and accuracy of train and validation per epoch.
    """
    save_figure(curves_figure(history, metrics, best_epoch, title), path)


def curves_figure(
    history: Sequence[dict],
    metrics: Sequence[tuple[str, str]],
    best_epoch: int | None = None,
    title: str = "",
) -> Figure:
    """The figure of `plot_curves`."""
    figure = new_figure(5 * len(metrics), 4, title)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, (name, label) in zip(panels, metrics, strict=True):
        _draw_metric(axes, history, name, label, best_epoch)
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles)
        )
    return figure


def _draw_metric(
    axes: Axes, history: Sequence[dict], name: str, label: str, best_epoch: int | None
) -> None:
    from matplotlib.ticker import MaxNLocator

    drawn = False
    for split, words, colour, line, marker in (
        ("train", "training", BLUE, "-", "o"),
        ("val", "validation", VERMILION, "--", "s"),
    ):
        rows = [row for row in history if row.get(f"{split}/{name}") is not None]
        if not rows:
            continue
        drawn = True
        epochs = [row["epoch"] for row in rows]
        values = [row[f"{split}/{name}"] for row in rows]
        axes.plot(
            epochs,
            np.where(np.isfinite(values), values, np.nan),
            color=colour,
            linestyle=line,
            marker=marker if len(rows) <= 30 else None,
            markersize=4,
            label=words,
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel(label, parse_math=False)
    axes.set_title(_panel_title(history, name, label, best_epoch), fontsize=10, parse_math=False)
    axes.grid(alpha=0.3)
    if not drawn:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not recorded", ha="center", color=GREY, transform=axes.transAxes)
        return
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if best_epoch is not None:
        axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"selected epoch {best_epoch}")


def _panel_title(history: Sequence[dict], name: str, label: str, best_epoch: int | None) -> str:
    """The label, with the values at the selected epoch (else the last) so that none is measured."""
    rows = [row for row in history if best_epoch is None or row["epoch"] == best_epoch]
    if not rows:
        return label
    row = rows[-1]
    values = [
        f"{words} {row[f'{split}/{name}']:.4g}"
        for split, words in (("train", "training"), ("val", "validation"))
        if row.get(f"{split}/{name}") is not None
    ]
    return f"epoch {row['epoch']}: " + ", ".join(values) if values else label


def plot_confusion(
    path: str | os.PathLike, counts: np.ndarray, classes: Sequence[str], *, title: str = ""
) -> None:
    """Write the confusion matrix: numbers are examples, colours are shares of the true class.

    Args:
      path: the PNG file to write.
      counts: integers [K, K], row the true class, column the predicted one.
      classes: K names.
      title: printed above the matrix.

    Raises:
      ValueError: counts is not square or does not fit the names.
    """
    save_figure(confusion_figure(counts, classes, title), path)


def confusion_figure(counts: np.ndarray, classes: Sequence[str], title: str = "") -> Figure:
    """The figure of `plot_confusion`."""
    from matplotlib.colors import PowerNorm

    counts = np.asarray(counts)
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"counts {counts.shape} do not fit {len(classes)} classes")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side, font = _matrix_size(len(classes))
    right, total = int(np.trace(counts)), int(counts.sum())
    heading = f"{right:,} of {total:,} correct, accuracy {right / max(total, 1):.4f}"
    figure = new_figure(side + 1.5, side, f"{title}\n{heading}" if title else heading)
    axes = figure.subplots()
    # The square root lifts a confusion of a few per cent out of the white beside the diagonal.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    ticks = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1]
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02, aspect=5 * side, ticks=ticks)
    bar.set_label("share of the true class")
    bar.ax.set_yticklabels(["0", "1 %", "5 %", "10 %", "25 %", "50 %", "100 %"])
    _label_classes(axes, classes, font)
    _write_counts(axes, counts, shares, font)
    return figure


def _matrix_size(classes: int) -> tuple[float, float]:
    """Side of the figure in inches and size of its letters in points, for K classes."""
    cell = 0.55 if classes <= 12 else 0.4 if classes <= 30 else 0.2
    side = min(max(5.0, 2.5 + cell * classes), 24.0)
    letters = min(10.0, 72 * 0.6 * (side - 2.5) / classes)
    return side, letters


def _label_classes(axes: Axes, classes: Sequence[str], font: float) -> None:
    every = math.ceil(len(classes) / 120)  # more names than this would print over each other
    ticks = range(0, len(classes), every)
    names = [shorten(classes[i], 20) for i in ticks]
    axes.set_xticks(ticks, names, rotation=90, fontsize=font, parse_math=False)
    axes.set_yticks(ticks, names, fontsize=font, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    edges, ends = np.arange(1, len(classes)) - 0.5, (-0.5, len(classes) - 0.5)
    axes.hlines(edges, *ends, color="#D0D0D0", linewidth=0.3)
    axes.vlines(edges, *ends, color="#D0D0D0", linewidth=0.3)


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray, font: float) -> None:
    if len(counts) > 120:
        return  # the digits would be smaller than a pixel
    digits = len(str(counts.max(initial=0)))
    size = min(font, font * 3.2 / max(digits, 1))
    for row, column in zip(*np.nonzero(counts), strict=True):
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=size,
            in_layout=False,  # measuring thousands of them would take most of the time
            color="white" if shares[row, column] > 0.3 else "black",
        )

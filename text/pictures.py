"""Pictures of a tagger's insides: the transition scores that a CRF has learnt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from common.plots import GREY, new_figure, save_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL = 0.75  # inches


def plot_transitions(
    path: str | os.PathLike,
    transitions: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    tags: Sequence[str],
    *,
    allowed: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    title: str = "",
) -> None:
    """Write the transition scores of a CRF, with those of starting and ending.

    Only differences between scores mean anything: the higher of two is the likelier step, other
    things equal.

    Args:
      path: the PNG file to write.
      transitions: float [K, K], the score of going from the row's tag to the column's.
      start: float [K], the score of a sentence that starts with the tag.
      end: float [K], the score of a sentence that ends with it.
      tags: K names.
      allowed: bool, shaped as (transitions, start, end); where it is False the cell is hatched,
        as decoding never goes there. None draws no hatching.
      title: printed above the matrix.

    Raises:
      ValueError: the shapes do not fit the names.

    Source: Lafferty et al. 2001, the linear-chain CRF; start and end as in Lample et al. 2016.
    """
    save_figure(transitions_figure(transitions, start, end, tags, allowed, title), path)


def transitions_figure(
    transitions: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    tags: Sequence[str],
    allowed: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    title: str = "",
) -> Figure:
    """The figure of `plot_transitions`."""
    scores = _frame(transitions, start, end, len(tags), np.nan)
    size = len(scores)
    finite = np.abs(scores[np.isfinite(scores)])
    limit = finite.max(initial=0) or 1.0
    figure = new_figure(CELL * size + 2.9, CELL * size + 1.6, title)
    axes = figure.subplots()
    image = axes.imshow(scores, cmap="RdBu", vmin=-limit, vmax=limit)
    bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.03)
    bar.set_label("score (log scale, not normalised)")
    names = [shorten(tag, 12) for tag in tags]
    axes.set_xticks(range(size), [*names, "end"], parse_math=False)
    axes.set_yticks(range(size), ["start", *names], parse_math=False)
    axes.set_xlabel("to")
    axes.set_ylabel("from")
    # Apart from the matrix proper: the first row and the last column are vectors of their own.
    axes.axhline(0.5, color="black", linewidth=1.5)
    axes.axvline(size - 1.5, color="black", linewidth=1.5)
    if allowed is not None:
        _hatch(axes, ~_frame(*allowed, len(tags), True).astype(bool))
    _write_scores(axes, scores, image.to_rgba(scores), limit)
    return figure


def _frame(transitions: Any, start: Any, end: Any, num_tags: int, corner: Any) -> np.ndarray:
    """[K + 1, K + 1]: start above and end to the right of the transitions."""
    parts = [np.asarray(part) for part in (transitions, start, end)]
    shapes = tuple(part.shape for part in parts)
    if shapes != ((num_tags, num_tags), (num_tags,), (num_tags,)):
        raise ValueError(f"transitions, start and end {shapes} do not fit {num_tags} tags")
    return np.block([[parts[1][None], np.array([[corner]])], [parts[0], parts[2][:, None]]])


def _hatch(axes: Axes, forbidden: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    for row, column in zip(*np.nonzero(forbidden), strict=True):
        patch = Rectangle(
            (column - 0.5, row - 0.5), 1, 1, fill=False, hatch="///", edgecolor=GREY, linewidth=0
        )
        axes.add_patch(patch)
    if forbidden.any():
        patch.set_label("forbidden: decoding never goes there")
        axes.figure.legend(handles=[patch], loc="outside lower center")


def _write_scores(axes: Axes, scores: np.ndarray, colours: np.ndarray, limit: float) -> None:
    for (row, column), score in np.ndenumerate(scores):
        if (row, column) == (0, len(scores) - 1):
            continue  # from start to end, which is no step of a sentence
        axes.text(
            column,
            row,
            f"{score:z.2f}" if abs(score) < 100 else f"{score:.4g}",
            ha="center",
            va="center",
            color="white" if abs(score) > 0.65 * limit else "black",
            # Else a hatched line through the number would pass for a minus.
            bbox={"facecolor": colours[row, column], "edgecolor": "none", "pad": 2},
        )

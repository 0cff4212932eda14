"""The figures of a study: scores as bars, differences with intervals, curves with bands.

Each panel is drawn by a function of its own, so that `curves.png` and `bars.png` put panels side
by side for print and the page shows one at a time, legible on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from common.plots import BLUE, GREEN, GREY, VERMILION, new_figure, shorten
from common.study import Study, Task
from common.study_answer import format_score
from common.study_table import Result, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow, which white paper swallows. 7, 4 and 5 have no common
# divisor, so that any two of up to 20 arms differ in two of colour, line and marker.
COLOURS = (BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v")
NAME_LENGTH = 26
LEGEND_POINTS = 32  # below the axes, whose ticks and label are above it


class Panel(NamedTuple):
    """A figure of one panel, and what it shows in words."""

    figure: Figure
    alt: str


def bars_figure(study: Study, rows: Sequence[Row], words: str) -> Figure:
    """Scores by arm, and beside them the differences to the baseline."""
    compared = [row for row in rows if row.comparison]
    figure = new_figure(11 if compared else 6.5, _height(rows))
    panels = figure.subplots(1, 2 if compared else 1, squeeze=False)[0]
    draw_scores(panels[0], rows, study.baseline, words)
    if compared:
        draw_differences(panels[1], compared, study.baseline, words)
    return figure


def curves_figure(study: Study, results: Sequence[Result], task: Task) -> Figure:
    """Training above, validation below, a column per metric; a line per arm."""
    names = drawn_curves(results, task)
    columns = max(sum(name.startswith(split) for name, _ in names) for split in ("train/", "val/"))
    lines = -(-len(names) // columns)
    figure = new_figure(5.5 * columns, 3.3 * lines + 0.25 * len(study.arms) / 2 + 0.3)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (name, words) in zip(panels, names, strict=False):
        draw_curves(axes, study, results, name, words)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    return figure


def page_panels(
    study: Study, rows: Sequence[Row], results: Sequence[Result], task: Task
) -> list[Panel]:
    """Every panel by itself, for a narrow page."""
    words = task.metrics[study.metric]
    figure = new_figure(5, _height(rows))
    draw_scores(figure.subplots(), rows, study.baseline, words)
    values = "; ".join(f"{row.arm} {row.mean:.4f}" for row in rows)
    panels = [Panel(figure, f"Bars of the {words} of every arm: {values}")]
    compared = [row for row in rows if row.comparison]
    if compared:
        figure = new_figure(5, _height(rows))
        draw_differences(figure.subplots(), compared, study.baseline, words)
        values = "; ".join(f"{r.arm} {r.comparison.difference:+.4f}" for r in compared)  # type: ignore[union-attr]
        panels.append(Panel(figure, f"Differences in {words} to {study.baseline}: {values}"))
    for name, words in drawn_curves(results, task):
        figure = new_figure(5, 3.6 + 0.2 * (len(study.arms) + 1) // 2)
        axes = figure.subplots()
        draw_curves(axes, study, results, name, words)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
        panels.append(Panel(figure, f"Curves of the {words} over the epochs, a line for each arm"))
    return panels


def drawn_curves(results: Sequence[Result], task: Task) -> list[tuple[str, str]]:
    """(NAME, words) of every curve that some run has, training before validation."""
    known = {name for result in results for row in result.history for name in row}
    named = [
        (f"{split}/{metric}", f"{words} in {spelt}")
        for split, spelt in (("train", "training"), ("val", "validation"))
        for metric, words in task.curves
    ]
    return [(name, words) for name, words in named if name in known]


def draw_scores(axes: Axes, rows: Sequence[Row], baseline: str, words: str) -> None:
    """A bar per arm with its deviation, a dot per seed, and the reported number as a diamond."""
    from matplotlib.transforms import ScaledTranslation

    places = range(len(rows))
    axes.barh(
        places,
        [row.mean for row in rows],
        xerr=[row.deviation or 0.0 for row in rows],
        color=["#D5D5D5" if row.arm == baseline else "#A6C8E4" for row in rows],
        edgecolor="black",
        linewidth=0.8,
        capsize=3,
        height=0.7,
    )
    for place, row in zip(places, rows, strict=True):
        scores = list(row.scores.values())
        axes.plot(scores, [place - 0.22] * len(scores), "o", color=BLUE, markersize=3.5, zorder=3)
        axes.text(0, place, f" {format_score(row)}", va="center", fontsize=9)
    reported = [(row.reported, place) for row, place in zip(rows, places, strict=True)]
    marked = [(value, place) for value, place in reported if value is not None]
    if marked:
        axes.plot(
            *zip(*marked, strict=True),
            "D",
            markerfacecolor="white",
            markeredgecolor=VERMILION,
            markeredgewidth=1.8,
            markersize=8,
            zorder=4,
            label="reported",
        )
        below = ScaledTranslation(0, -LEGEND_POINTS / 72, axes.figure.dpi_scale_trans)
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            bbox_transform=axes.transAxes + below,
            frameon=False,
        )
    _name_arms(axes, rows)
    axes.set_xlabel(words, parse_math=False)
    axes.set_title("mean and deviation; a dot for each seed", fontsize=10)


def draw_differences(axes: Axes, rows: Sequence[Row], baseline: str, words: str) -> None:
    """Differences to the baseline: over seeds as a line with caps, over test examples thicker."""
    from matplotlib.ticker import MaxNLocator

    for place, row in enumerate(rows):
        found = row.comparison
        if found is None:
            continue
        if found.bootstrap:
            axes.hlines(place + 0.14, *found.bootstrap, color=GREY, linewidth=5, alpha=0.6)
        if found.interval:
            low, high = found.interval
            axes.errorbar(
                found.difference,
                place - 0.1,
                xerr=[[found.difference - low], [high - found.difference]],
                color=BLUE,
                capsize=4,
                marker="o",
            )
        else:
            axes.plot(found.difference, place - 0.1, "o", color=BLUE)
    axes.xaxis.set_major_locator(MaxNLocator(5))  # more labels such as -0.150 run into each other
    axes.axvline(0, color="black", linewidth=1)
    _name_arms(axes, rows)
    axes.set_xlabel(f"{words}, less that of {shorten(baseline, NAME_LENGTH)}", parse_math=False)
    axes.set_title("95 %: line over seeds, thick bar over test examples", fontsize=10, loc="right")


def draw_curves(axes: Axes, study: Study, results: Sequence[Result], name: str, words: str) -> None:
    """The mean over seeds of a metric by epoch, a band of one deviation about it."""
    from matplotlib.ticker import MaxNLocator

    for number, arm in enumerate(study.arms):
        epochs, mean, deviation = band([r for r in results if r.arm == arm], name)
        if not len(epochs):
            continue
        colour = COLOURS[number % len(COLOURS)]
        axes.fill_between(epochs, mean - deviation, mean + deviation, color=colour, alpha=0.15)
        axes.plot(
            epochs,
            mean,
            color=colour,
            linestyle=LINES[number % len(LINES)],
            marker=MARKERS[number % len(MARKERS)],
            markevery=max(1, len(epochs) // 8),
            markersize=4,
            label=shorten(arm, NAME_LENGTH),
        )
    axes.set_xlabel("epoch")
    axes.set_title(words, fontsize=10, parse_math=False)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def band(results: Sequence[Result], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs, mean and deviation over seeds of a metric; deviation 0 where one seed has it."""
    by_epoch: dict[int, list[float]] = {}
    for result in results:
        for row in result.history:
            if row.get(name) is not None:
                by_epoch.setdefault(row["epoch"], []).append(row[name])
    epochs = sorted(by_epoch)
    mean = np.array([np.mean(by_epoch[epoch]) for epoch in epochs])
    deviation = [np.std(v, ddof=1) if len(v := by_epoch[e]) > 1 else 0.0 for e in epochs]
    return np.array(epochs), mean, np.array(deviation)


def _name_arms(axes: Axes, rows: Sequence[Row]) -> None:
    names = [shorten(row.arm, NAME_LENGTH) for row in rows]
    axes.set_yticks(range(len(rows)), names, parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first arm on top
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _height(rows: Sequence[Row]) -> float:
    return 1.6 + 0.5 * len(rows)

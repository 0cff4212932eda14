"""The structure of a network as a picture: its layers as boxes, its shortcuts as arrows."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.blocks import Unit, fold
from common.describe import Row, engineering, format_table, shape_text
from common.plots import BLUE, GREY, VERMILION, new_figure, save_figure, shorten
from common.writer import say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# All lengths in inches.
BOX_WIDTH, BOX_HEIGHT, BOX_GAP = 2.1, 0.36, 0.15
FRAME_PAD, FRAME_HEAD, FRAME_FOOT = 0.12, 0.26, 0.3
UNIT_GAP, COLUMN_GAP, SIDE_GAP = 0.24, 0.45, 0.3
MARGIN, TITLE_HEIGHT = 0.25, 0.6
PLUS_RADIUS = 0.09
ASPECT = 1.4  # width over height to aim at: a screen, or paper across
FILLS = {"Conv": "#D6E8F5", "Dense": "#FBE3CF", "Pool": "#D5EFE6", "Norm": "#EEEEEE"}


def show_structure(rows: Sequence[Row], model: str, note: str, workdir: str | None) -> None:
    """Print the layer table; write structure.txt and structure.png.

    Args:
      rows: what `common.describe.describe` returned, at least one.
      model: its name.
      note: what the shapes are of, for the title of the table.
      workdir: where to write [runs/describe-MODEL].
    """
    table = format_table(rows, f"{model}, {note}")
    folder = Path(workdir or f"runs/describe-{model}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "structure.txt").write_text(table + "\n")
    plot_structure(folder / "structure.png", rows, model)
    say(f"{table}\npicture: {folder / 'structure.png'}")


def plot_structure(path: str | os.PathLike, rows: Sequence[Row], title: str) -> None:
    """Write the structure of a network as a picture.

    Args:
      path: the PNG file to write.
      rows: what `common.describe.describe` returned, at least one.
      title: printed above.

    Source: report B shows its networks by Keras's plot_model.
    """
    save_figure(structure_figure(rows, title), path)


def structure_figure(rows: Sequence[Row], title: str) -> Figure:
    """The figure of `plot_structure`."""
    units = fold(rows)
    pitch = _unit_width(units) + COLUMN_GAP
    columns, width, height = _arrange(units, pitch)
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    params, flops = sum(row.params for row in rows), sum(row.flops for row in rows)
    heading = shorten(title, int(8 * width))  # letters of this size, about 8 to the inch
    axes.text(MARGIN, MARGIN, heading, fontsize=12, weight="bold", va="center", parse_math=False)
    axes.text(
        MARGIN,
        MARGIN + 0.25,
        f"{params:,} parameters, {engineering(flops, 'FLOPs')} forward per example\n"
        f"input {shape_text(rows[0].inputs)}; in each box the output shape and the parameters",
        fontsize=8,
        color=GREY,
        va="center",
    )
    _draw_columns(axes, columns, pitch)
    return figure


def _stack_height(rows: Sequence[Row]) -> float:
    return len(rows) * (BOX_HEIGHT + BOX_GAP) - BOX_GAP if rows else 0.0


def _unit_height(unit: Unit) -> float:
    stacked = max(_stack_height(unit.main), _stack_height(unit.side))
    if unit.is_layer:
        return stacked
    foot = FRAME_FOOT if unit.residual else 0
    return FRAME_HEAD + BOX_GAP + stacked + foot + FRAME_PAD


def _unit_width(units: Sequence[Unit]) -> float:
    """Width of a column: a frame, with room for the widest side branch that occurs."""
    if any(unit.side for unit in units):
        side = SIDE_GAP + BOX_WIDTH
    else:
        side = 1.5 * SIDE_GAP if any(unit.residual for unit in units) else 0.0
    return BOX_WIDTH + side + 2 * FRAME_PAD


def _arrange(units: Sequence[Unit], pitch: float) -> tuple[list[list[Unit]], float, float]:
    """Columns of units and the size of the figure, its shape as near to ASPECT as can be."""
    total = sum(_unit_height(unit) + UNIT_GAP for unit in units)
    best = None
    for count in range(1, len(units) + 1):
        limit = total / count
        while len(columns := _fill(units, limit)) > count:
            limit *= 1.03
        tallest = max(sum(_unit_height(unit) + UNIT_GAP for unit in column) for column in columns)
        # A single narrow column still has to hold the heading.
        width = max(len(columns) * pitch - COLUMN_GAP, 4.2) + 2 * MARGIN
        height = TITLE_HEIGHT + tallest + 2 * MARGIN
        misfit = abs(math.log(width / height / ASPECT))
        if best is None or misfit < best[0]:
            best = misfit, columns, width, height
    assert best is not None
    return best[1:]


def _fill(units: Sequence[Unit], limit: float) -> list[list[Unit]]:
    """Units in order, a new column wherever the height would pass `limit`."""
    columns: list[list[Unit]] = [[]]
    filled = 0.0
    for unit in units:
        if columns[-1] and filled + _unit_height(unit) + UNIT_GAP > limit:
            columns.append([])
            filled = 0.0
        columns[-1].append(unit)
        filled += _unit_height(unit) + UNIT_GAP
    return columns


def _draw_columns(axes: Axes, columns: Sequence[Sequence[Unit]], pitch: float) -> None:
    top = MARGIN + TITLE_HEIGHT
    previous = None
    for index, column in enumerate(columns):
        left = MARGIN + index * pitch
        centre = left + FRAME_PAD + BOX_WIDTH / 2
        y = top + UNIT_GAP
        for unit in column:
            if previous is not None:
                _arrow(axes, _route(previous, (centre, y), left - COLUMN_GAP / 2))
            _draw_unit(axes, unit, left, y)
            y += _unit_height(unit)
            previous = (centre, y)
            y += UNIT_GAP


def _route(
    start: tuple[float, float], end: tuple[float, float], gutter: float
) -> list[tuple[float, float]]:
    """Straight down within a column; to the next one round by the gutter between them."""
    if start[0] == end[0]:
        return [start, end]
    below, above = start[1] + UNIT_GAP / 2, end[1] - UNIT_GAP / 2
    return [start, (start[0], below), (gutter, below), (gutter, above), (end[0], above), end]


def _draw_unit(axes: Axes, unit: Unit, left: float, top: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    centre = left + FRAME_PAD + BOX_WIDTH / 2
    if unit.is_layer:
        _draw_stack(axes, unit.main, centre, top, framed=False)
        return
    bottom = top + _unit_height(unit)
    axes.add_patch(
        FancyBboxPatch(
            (left, top),
            _unit_width([unit]),
            _unit_height(unit),
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor="#FAFAFA",
            edgecolor=GREY,
            linewidth=0.8,
        )
    )
    label: dict[str, Any] = {"fontsize": 8, "weight": "bold", "va": "center", "parse_math": False}
    axes.text(left + 0.08, top + FRAME_HEAD / 2, shorten(unit.label, 30), **label)
    start = top + FRAME_HEAD
    first = start + BOX_GAP
    last = first + _stack_height(unit.main)
    if unit.main:
        _arrow(axes, [(centre, start), (centre, first)])
        _draw_stack(axes, unit.main, centre, first, framed=True)
    if not unit.residual:
        axes.plot([centre, centre], [last, bottom], color="black", linewidth=0.8)
        return
    join = bottom - FRAME_PAD - PLUS_RADIUS
    _draw_shortcut(axes, unit, centre, start + 0.04, join)
    _arrow(axes, [(centre, last), (centre, join - PLUS_RADIUS)])
    _draw_plus(axes, centre, join)
    axes.plot([centre, centre], [join + PLUS_RADIUS, bottom], color="black", linewidth=0.8)


def _draw_shortcut(axes: Axes, unit: Unit, centre: float, fork: float, join: float) -> None:
    """From the fork above the first layer, past the main branch, to the sum below the last."""
    half = BOX_WIDTH / 2
    lane = centre + half + (SIDE_GAP + half if unit.side else 0.75 * SIDE_GAP)
    corners = [(centre, fork), (lane, fork), (lane, join), (centre + PLUS_RADIUS, join)]
    _arrow(axes, corners, VERMILION, 1.4)
    middle = (fork + join) / 2
    if unit.side:
        top = middle - _stack_height(unit.side) / 2
        _draw_stack(axes, unit.side, lane, top, framed=True)
    else:
        axes.text(
            lane,
            middle,
            "identity",
            fontsize=7,
            rotation=90,
            ha="center",
            va="center",
            color=VERMILION,
            bbox={"facecolor": "#FAFAFA", "edgecolor": "none", "pad": 1.5},
        )


def _draw_plus(axes: Axes, x: float, y: float) -> None:
    from matplotlib.patches import Circle

    arm = 0.6 * PLUS_RADIUS
    axes.add_patch(Circle((x, y), PLUS_RADIUS, facecolor="white", edgecolor="black", zorder=3))
    axes.plot([x - arm, x + arm], [y, y], color="black", linewidth=1, zorder=4)
    axes.plot([x, x], [y - arm, y + arm], color="black", linewidth=1, zorder=4)


def _draw_stack(axes: Axes, rows: Sequence[Row], centre: float, top: float, framed: bool) -> None:
    for index, row in enumerate(rows):
        y = top + index * (BOX_HEIGHT + BOX_GAP)
        if index:
            _arrow(axes, [(centre, y - BOX_GAP), (centre, y)])
        path = row.path.partition("/")[2] if framed else row.path
        _draw_box(axes, row, path, centre - BOX_WIDTH / 2, y)


def _draw_box(axes: Axes, row: Row, path: str, left: float, top: float) -> None:
    from matplotlib.patches import Rectangle

    fill = next((colour for key, colour in FILLS.items() if key in row.kind), "white")
    axes.add_patch(
        Rectangle(
            (left, top), BOX_WIDTH, BOX_HEIGHT, facecolor=fill, edgecolor=BLUE, lw=0.8, zorder=3
        )
    )
    kind = shorten(row.kind, 16)
    room = 28 - len(kind)
    path = path if len(path) <= room else "…" + path[1 - room :]
    right, upper, lower = left + BOX_WIDTH - 0.06, top + 0.11, top + BOX_HEIGHT - 0.1
    common: dict[str, Any] = {"va": "center", "zorder": 4, "parse_math": False}
    axes.text(left + 0.06, upper, kind, fontsize=7.5, weight="bold", **common)
    axes.text(right, upper, path, fontsize=6.5, ha="right", color=GREY, **common)
    axes.text(left + 0.06, lower, shape_text(row.outputs), fontsize=7.5, **common)
    if row.params:
        axes.text(right, lower, f"{row.params:,}", fontsize=7.5, ha="right", **common)


def _arrow(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    colour: str = "black",
    width: float = 0.8,
) -> None:
    """A line through `points`, given as (x, y), with a head at the last."""
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=width, zorder=2)
    head = {
        "arrowstyle": "-|>",
        "color": colour,
        "linewidth": width,
        "mutation_scale": 7,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.annotate("", xy=points[-1], xytext=points[-2], arrowprops=head, zorder=2)

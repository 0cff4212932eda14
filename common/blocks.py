"""The blocks of a network, found in the rows of its layer table.

Layers in sequence whose paths start with the same name are a block; equal blocks in sequence
are told once and counted. Of a block's layers those with "shortcut" in their path are its side
branch. A shortcut that does not change the shape is no layer and so has no row: a block is
taken to have one if its name equals, but for digits, that of a block with a side branch.
"""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from common.describe import Row


class Unit(NamedTuple):
    """Equal blocks in sequence: their names, and the rows of the first by branch.

    A layer outside any block is a unit whose name is its path.
    """

    names: tuple[str, ...]
    main: tuple[Row, ...]
    side: tuple[Row, ...]
    residual: bool

    @property
    def is_layer(self) -> bool:
        """Whether this is a single layer outside any block."""
        return len(self.names) == 1 and not self.residual and self.main[0].path == self.names[0]

    @property
    def label(self) -> str:
        """The name, or the names and number of the blocks: "stage3_block2 to 36, x 35"."""
        first, last = self.names[0], self.names[-1]
        if len(self.names) == 1:
            return first
        same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
        # Not in the middle of a number: 10 to 12 must not become "10 to 2".
        same = len(first[:same].rstrip("0123456789"))
        return f"{first} to {last[same:]}, x {len(self.names)}"


def fold(rows: Sequence[Row]) -> list[Unit]:
    """The units of a network, in order.

    Args:
      rows: what `common.describe.describe` returned.
    """
    blocks = [(name, tuple(block)) for name, block in groupby(rows, _block_name)]
    families = {_family(name) for name, block in blocks if any(map(_is_shortcut, block))}
    units = []
    for _, group in groupby(blocks, _signature):
        same = list(group)
        name, block = same[0]
        units.append(
            Unit(
                names=tuple(name for name, _ in same),
                main=tuple(row for row in block if not _is_shortcut(row)),
                side=tuple(row for row in block if _is_shortcut(row)),
                residual=_family(name) in families,
            )
        )
    return units


def _block_name(row: Row) -> str:
    return row.path.partition("/")[0]


def _is_shortcut(row: Row) -> bool:
    return "shortcut" in row.path.partition("/")[2]


def _family(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _signature(block: tuple[str, tuple[Row, ...]]) -> tuple:
    """What two blocks must share to be told as one: all but the digits of their names."""
    name, rows = block
    return _family(name), tuple(row._replace(path=row.path.partition("/")[2]) for row in rows)

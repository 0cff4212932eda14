"""Shows what was measured, the ratio first, and keeps it as JSON with machine and versions."""

import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.host import cores, has_bfloat16, has_matrix_units

PACKAGES = ("jax", "flax", "torch", "pytorch-crf", "torch-struct", "numpy")
# What a number is shown in: how many of it make a second, a byte or one; and its decimals.
UNITS = {
    "ms": (1e3, 3),
    "us": (1e6, 2),
    "s": (1.0, 2),
    "MiB": (2.0**-20, 0),
    "operations": (1.0, 0),
}


@dataclass(frozen=True)
class Row:
    """One case of one question.

    Attributes:
        case: what was done.
        sides: what each side took, in seconds, bytes or operations. The first is what the
            others are compared with: where there is a peer, "athanor", which is ours.
        unit: a key of UNITS, what the numbers are shown in.
        note: why a side is missing, say.
    """

    case: str
    sides: Mapping[str, float]
    unit: str = "ms"
    note: str = ""

    def ratios(self) -> dict[str, float]:
        """How many times as much as the first side each other one took."""
        _, first = next(iter(self.sides.items()))
        return {name: value / first for name, value in list(self.sides.items())[1:]}


Tables = Mapping[str, Sequence[Row]]  # by title
Question = Mapping[str, Callable[[], Sequence[Row]]]  # what measures each table, by title


def machine() -> dict[str, str | float | None]:
    """The GPU, the processor, what multiplies bfloat16 there, its cores that may be used and how
    many were busy for a minute, the system, versions that matter."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return {
        **({"gpu": _value(gpus[0], "Model")} if gpus else {}),
        "processor": _processor(),
        "bfloat16 by": _bfloat16_units(),
        "cores": len(cores()),
        "load": round(os.getloadavg()[0], 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        **versions,
    }


def _bfloat16_units() -> str:
    if has_matrix_units():
        return "AMX"
    return "vectors" if has_bfloat16() else "nothing"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    named = _value(cpuinfo, "model name") if cpuinfo.exists() else ""
    return named or platform.processor() or platform.machine()


def _value(file: Path, name: str) -> str:
    """What the first line "NAME : VALUE" of a file says, or nothing."""
    for line in file.read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return ""


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """A table as text, its head first: case, ratios of the other sides, numbers of all, notes.

    All rows have the unit of the first one.
    """
    sides = list(dict.fromkeys(name for row in rows for name in row.sides))
    first, *others = sides
    unit, noted = rows[0].unit, any(row.note for row in rows)
    scale, decimals = UNITS[unit]
    lines = [["case", *(f"{n} / {first}" for n in others), *(f"{n}, {unit}" for n in sides)]]
    for row in rows:
        ratios = row.ratios()
        lines.append(
            [
                row.case,
                *(f"{ratios[n]:.2f}" if n in ratios else "-" for n in others),
                *(f"{scale * row.sides[n]:.{decimals}f}" if n in row.sides else "-" for n in sides),
            ]
        )
    if noted:
        notes = ["", *(row.note for row in rows)]
        lines = [[*line, note] for line, note in zip(lines, notes, strict=True)]
    return lines


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a table."""
    lines = cells(rows)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    print(f"\n{title}")
    for line in lines:
        first, *rest = (cell.ljust(w) if i == 0 else cell.rjust(w)
                        for i, (cell, w) in enumerate(zip(line, widths, strict=True)))  # fmt: skip
        print("  ".join([first, *rest]).rstrip(), flush=True)


def measure(question: Question) -> Iterator[tuple[str, Sequence[Row]]]:
    """Every table with its title; each is printed as it comes."""
    for title, make in question.items():
        rows = make()
        show(title, rows)
        yield title, rows


def show_all(question: Question) -> None:
    """Print every table as it comes."""
    for _ in measure(question):
        pass


def save(
    path: Path,
    described: Mapping[str, Any],
    tables: Mapping[str, Tables],
    seconds: Mapping[str, float],
) -> None:
    """Write when, how and where it was measured, and every question's tables, as JSON.

    Args:
        path: of the file; its folder is made if need be.
        described: the `machine`, as before the measurement.
        tables: of each question.
        seconds: that each question took altogether.
    """
    questions = {
        question: {
            "seconds": seconds[question],
            "tables": {
                title: [asdict(row) | {"ratios": row.ratios()} for row in rows]
                for title, rows in found.items()
            },
        }
        for question, found in tables.items()
    }
    head = {
        "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "machine": described,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head | {"questions": questions}, indent=2) + "\n")


def load_rows(saved: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows of one table of the JSON."""
    return [Row(row["case"], row["sides"], row["unit"], row["note"]) for row in saved]

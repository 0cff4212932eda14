"""Prints what was timed, the ratio first, and keeps it as JSON with machine and versions."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PACKAGES = ("jax", "flax", "torch", "pytorch-crf", "torch-struct", "numpy")


@dataclass(frozen=True)
class Row:
    """One case of one question.

    Attributes:
        case: what was done.
        seconds: the median of a call by side; "athanor" is ours.
    """

    case: str
    seconds: Mapping[str, float]

    def ratios(self) -> dict[str, float]:
        """How many times as long as ours each other side took."""
        ours = self.seconds["athanor"]
        return {name: s / ours for name, s in self.seconds.items() if name != "athanor"}


def machine() -> dict[str, str | int | None]:
    """The processor, its cores, the operating system and the versions that matter."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **versions,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def show(question: str, rows: Sequence[Row]) -> None:
    """Print a table: case, ratio to each other side, milliseconds of all."""
    sides = list(dict.fromkeys(name for row in rows for name in row.seconds))
    others = [name for name in sides if name != "athanor"]
    heads = ["case", *(f"{name} / athanor" for name in others), *(f"{name} ms" for name in sides)]
    lines = [heads]
    for row in rows:
        ratios = row.ratios()
        lines.append(
            [
                row.case,
                *(f"{ratios[name]:.2f}" if name in ratios else "-" for name in others),
                *(f"{1e3 * row.seconds[n]:.3f}" if n in row.seconds else "-" for n in sides),
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    print(f"\n{question}")
    for line in lines:
        first, *rest = (cell.ljust(w) if i == 0 else cell.rjust(w)
                        for i, (cell, w) in enumerate(zip(line, widths, strict=True)))  # fmt: skip
        print("  ".join([first, *rest]), flush=True)


def save(path: Path, results: Mapping[str, Sequence[Row]]) -> None:
    """Write the machine and every question's rows, seconds and ratios, as JSON."""
    questions = {
        question: [asdict(row) | {"ratios": row.ratios()} for row in rows]
        for question, rows in results.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "questions": questions}, indent=2) + "\n")

"""Writes docs/performance*.md from what `python -m benchmarks` measured; no number is typed.

python -m benchmarks.page runs/bench.json > docs/performance.md
"""

import argparse
import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import Row, cells, load_rows

HERE = Path(__file__).parent
HEAD = """\
# Performance

Written by `python -m benchmarks.page` from the JSON of a measurement; do not edit.

    make bench                                          # everything, into runs/bench.json
    python -m benchmarks crf memory --json=FILE         # some questions
    python -m benchmarks.crf                            # one, printed only
    python -m benchmarks gpu --json=runs/bench-gpu.json # on a GPU
    python -m benchmarks.page runs/bench.json > docs/performance.md

`make bench` installs the peers (requirements-bench.txt) and takes up to half an hour on two cores.
It should have the machine for itself. In every table the ratios come first: how many times as
much each other side took as the first one, which is ours wherever there is a peer. Numbers are
medians unless a question says that what is slow was timed once; sides that share a table row were
measured in turn, on the same cores, all of them.
"""


def page(measured: Mapping[str, Any]) -> str:
    """The page, in Markdown.

    Args:
        measured: the JSON that `benchmarks.report.save` wrote.
    """
    machine = ", ".join(f"{name} {value}" for name, value in measured["machine"].items())
    parts = [HEAD, f"Measured on {measured['date']} by `{measured['command']}`: {machine}.\n"]
    for question, found in measured["questions"].items():
        title, text = describe(question)
        parts.append(f"## {title}\n\n{text}\n\nMeasured in {found['seconds']:.0f} s.\n")
        for name, rows in found["tables"].items():
            parts.append(f"**{name}**\n\n{markdown(load_rows(rows))}")
    return "\n".join(parts)


def describe(question: str) -> tuple[str, str]:
    """The first line of the docstring of benchmarks/QUESTION.py, and the rest of it."""
    text = ast.get_docstring(ast.parse((HERE / f"{question}.py").read_text()))
    assert text, f"benchmarks/{question}.py has no docstring"
    title, _, rest = text.partition("\n")
    return title, rest.strip("\n")


def markdown(rows: Sequence[Row]) -> str:
    """A table; what is said in numbers stands at the right."""
    head, *lines = cells(rows)
    noted = bool(rows) and any(row.note for row in rows)
    numbers = len(head) - 1 - noted
    rule = [":--", *["--:"] * numbers, *[":--"] * noted]
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, rule, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path, help="what python -m benchmarks wrote")
    path = parser.parse_args().json
    try:
        text = page(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        parser.error(f"{path} is not what `python -m benchmarks --json=FILE` writes")
    print(text, end="")


if __name__ == "__main__":
    main()

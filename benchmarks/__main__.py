"""Every question in turn, or those named: a table each, and all of it as JSON."""

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.report import Row, machine, measure, save

QUESTIONS = (
    "startup",
    "memory",
    "crf",
    "tagger",
    "classifier",
    "operations",
    "cifar_time_to_accuracy",
    "scaling",  # it alone computes in this process, and may keep a GPU's memory
)

OPTIONAL = ("gpu",)  # asked by name alone
PEERS = ("torch", "torchcrf", "torch_struct")
WITH_TEXTS = ("tagger", "gpu")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("questions", nargs="*", default=QUESTIONS,
                        help=f"[{' '.join(QUESTIONS)}], and {' '.join(OPTIONAL)}")  # fmt: skip
    parser.add_argument(
        "--data_dir", help="corpus of the tagger [laptop14 if at hand, or embedded]"
    )
    parser.add_argument("--embeddings", default="glove", help="word vectors of it [%(default)s]")
    parser.add_argument("--json", type=Path, default=Path("runs/bench.json"), help="[%(default)s]")
    arguments = parser.parse_args()
    if unknown := set(arguments.questions) - {*QUESTIONS, *OPTIONAL}:
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    if missing := [peer for peer in PEERS if find_spec(peer) is None]:
        parser.error(f"{', '.join(missing)} not found: pip install -r requirements-bench.txt")
    if arguments.json.is_dir():
        parser.error(f"--json={arguments.json} is a folder: name a file")
    try:
        ask(arguments)
    except KeyboardInterrupt:
        print(f"\nstopped; the tables that were finished are in {arguments.json}", file=sys.stderr)
        raise SystemExit(130) from None


def ask(arguments: argparse.Namespace) -> None:
    """Measure what was asked for; every table is saved as it comes."""
    described = machine()
    print(", ".join(f"{name} {value}" for name, value in described.items()))
    found: dict[str, dict[str, Sequence[Row]]] = {}
    seconds: dict[str, float] = {}
    for name in arguments.questions:
        print(f"\n== {name}", flush=True)
        start = time.perf_counter()
        question = importlib.import_module(f"benchmarks.{name}").question
        texts = {"data_dir": arguments.data_dir, "embeddings": arguments.embeddings}
        found[name], seconds[name] = {}, 0.0
        for title, rows in measure(question(**texts) if name in WITH_TEXTS else question()):
            found[name][title] = rows
            seconds[name] = time.perf_counter() - start
            save(arguments.json, described, found, seconds)
        print(f"\n{name}: {seconds[name]:.0f} s")
    print(f"\n{sum(seconds.values()):.0f} s altogether; everything as JSON: {arguments.json}")


if __name__ == "__main__":
    main()

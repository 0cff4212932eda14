"""Every question in turn, or those named: a table each, and all of it as JSON."""

import argparse
import importlib
import time
from pathlib import Path

from benchmarks.report import Tables, machine, save

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
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    found: dict[str, Tables] = {}
    seconds: dict[str, float] = {}
    for question in arguments.questions:
        print(f"\n== {question}", flush=True)
        start = time.perf_counter()
        main = importlib.import_module(f"benchmarks.{question}").main
        texts = {"data_dir": arguments.data_dir, "embeddings": arguments.embeddings}
        found[question] = main(**texts) if question in WITH_TEXTS else main()
        seconds[question] = time.perf_counter() - start
        save(arguments.json, found, seconds)  # what is done is kept if the next one fails
        print(f"\n{question}: {seconds[question]:.0f} s")
    print(f"\n{sum(seconds.values()):.0f} s altogether; everything as JSON: {arguments.json}")


if __name__ == "__main__":
    main()

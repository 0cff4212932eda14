"""`python -m benchmarks`: every question in turn, a table each, and all of it as JSON."""

import argparse
from pathlib import Path

from benchmarks import classifier, crf, tagger
from benchmarks.report import machine, save

LAPTOP14 = Path("../shared/data/semeval/laptop14")  # where it is at hand; else the embedded reviews


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("runs/bench.json"), help="[%(default)s]")
    path = parser.parse_args().json
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    results = crf.main()
    results |= tagger.main(str(LAPTOP14) if LAPTOP14.is_dir() else None)
    results |= classifier.main()
    save(path, results)
    print(f"\nratios above 1: the other side takes longer; everything as JSON: {path}")


if __name__ == "__main__":
    main()

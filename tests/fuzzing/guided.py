"""Coverage-guided fuzzing of every parser, by atheris (pip install -r requirements-fuzz.txt).

    python -m tests.fuzzing.guided all -max_total_time=1800
    python -m tests.fuzzing.guided study runs/fuzz/study/crash-...     a finding again

The first argument chooses a parser, or all, where the first byte of an input chooses; the others
are libFuzzer's. Inputs worth keeping, findings among them, lie in runs/fuzz/CHOICE. A finding that
is fixed becomes a file of tests/fixtures/findings, which tests/test_parsers.py reads.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["common", "text", "vision", "yaml", "tarfile", "json"]):
    from tests.fuzzing.parsers import PARSERS, message_of

NAMES = list(PARSERS)


def write_seeds(choice: str, folder: Path) -> None:
    """The valid files of the chosen parsers, as the inputs to begin with."""
    for number, name in enumerate(NAMES):
        for row, content in enumerate(PARSERS[name].seeds() if choice in ("all", name) else []):
            chosen = bytes([number]) if choice == "all" else b""
            (folder / f"{name}-{row}").write_bytes(chosen + content)


def main() -> None:
    choice = sys.argv[1] if len(sys.argv) > 1 else ""
    if choice not in ("all", *NAMES):
        sys.exit(f"choose one of: all {' '.join(NAMES)}")
    folder = Path("runs/fuzz") / choice
    folder.mkdir(parents=True, exist_ok=True)
    write_seeds(choice, folder)

    def read_one(data: bytes) -> None:
        name = NAMES[data[0] % len(NAMES)] if choice == "all" and data else choice
        if name != "all":
            with tempfile.TemporaryDirectory() as scratch:
                message_of(PARSERS[name], data[choice == "all" :], Path(scratch))

    options = ["-rss_limit_mb=4096", "-timeout=60", "-max_len=65536", f"-artifact_prefix={folder}/"]
    inputs = [] if any(Path(argument).is_file() for argument in sys.argv[2:]) else [str(folder)]
    atheris.Setup([sys.argv[0], *options, *sys.argv[2:], *inputs], read_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""Damaged files for every parser, without a coverage tool: what comes of them, how long, how large.

    python -m tests.fuzzing.mutation --count=10000

Prints a table; a finding is kept in --keep, and the exit status is then 1. Peak memory is read
from Linux's /proc, and is 0 elsewhere.
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzzing.parsers import PARSERS, Parser, message_of

# What damages a file in an interesting way, whatever its format.
TOKENS = [
    *(
        bytes([value])
        for value in (0, 1, 9, 10, 13, 32, 34, 38, 42, 45, 60, 91, 123, 127, 128, 255)
    ),
    *(b"\xff\xff\xff\x7f", b"\xff" * 8, bytes(8), b"\r\n", b"\xe2\x80\xa8", b"\xef\xbb\xbf"),
    *(b"\xed\xa0\x80", b"\xc2\x85", b"\\ud800", b"&#0;", b"&#x41;", b"&lol;", b"<!DOCTYPE a []>"),
    *(b"<sentence>", b"</sentence>", b"<text>", b"</text>", b"-1", b"0", b"99999999999999999999"),
    *(b"1e999", b"NaN", b"nan", b"inf", b"null", b"true", b"{}", b"[]", b"9" * 5000, b"[" * 5000),
    *(b"{", b"}", b"]", b'"', b"'", b": ", b", ", b"&a ", b"*a ", b"!!python/name:os.system "),
    *(b"!!timestamp 1", b"2026-13-41", b"? ", b"../", b"/etc/passwd", b"\t", b" ", b"O", b"B-X"),
]


def mutate(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """`content` with one to four changes; `other` is a second file to take parts from."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        start = chance.randint(0, len(content))
        end = min(len(content), start + chance.choice((0, 1, 1, 2, 4, 16, 256)))
        begin = chance.randint(0, len(other))
        piece = chance.choice(
            (
                b"",
                chance.randbytes(max(end - start, 1)),
                chance.choice(TOKENS),
                chance.choice(TOKENS),
                content[start:end] * chance.choice((2, 3, 50)),
                other[begin : begin + chance.choice((1, 8, 64))],
            )
        )
        content = content[:start] + piece + content[end:]
        if chance.random() < 0.05:
            content = content[: chance.randint(0, len(content))]
    return content


def _memory(name: str) -> float:
    """MB of this process, now (VmRSS) or at most (VmHWM); 0 where there is no /proc."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), 0.0)


def _read_measured(parser: Parser, content: bytes) -> tuple[str | None, float, float]:
    """The message, the seconds and the MB above what was there before."""
    with tempfile.TemporaryDirectory() as folder:
        if Path("/proc/self/clear_refs").exists():
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, start = _memory("VmRSS"), time.perf_counter()
        message = message_of(parser, content, Path(folder))
        return message, time.perf_counter() - start, max(_memory("VmHWM") - before, 0.0)


def run(name: str, count: int, seed: int, keep: Path) -> int:
    """Damage one parser's files `count` times; print its row, return the number of findings."""
    parser, chance = PARSERS[name], random.Random(f"{name} {seed}")
    seeds = parser.seeds()
    for content in seeds:
        _read_measured(parser, content)  # imports what it needs
    refused = findings = 0
    slowest = largest = 0.0
    for number in range(count):
        content = mutate(chance.choice(seeds), chance.choice(seeds), chance)
        try:
            message, seconds, memory = _read_measured(parser, content)
        except Exception:
            findings += 1
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{name}-{seed}-{number}").write_bytes(content)
            print(f"{name} {number}: {traceback.format_exc(limit=-2)}", file=sys.stderr)
            continue
        refused += message is not None
        slowest, largest = max(slowest, seconds), max(largest, memory)
    print(
        f"{name:<32} {count:>6} {count - refused - findings:>6} {refused:>8} {findings:>8} "
        f"{slowest:>10.3f} {largest:>8.1f}",
        flush=True,
    )
    return findings


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("--count", type=int, default=10_000, help="inputs over all parsers")
    flags.add_argument("--parser", choices=PARSERS, action="append", help="this one alone")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--keep", type=Path, default=Path("runs/findings"), help="for findings")
    given = flags.parse_args()
    names = given.parser or list(PARSERS)
    print(f"{'parser':<32} inputs   read  refused findings  slowest s  peak MB")
    findings = [run(name, -(-given.count // len(names)), given.seed, given.keep) for name in names]
    return int(any(findings))


if __name__ == "__main__":
    sys.exit(main())

"""Stands in for launch.py: runs of a toy study, which note their starts and take no time.

With --label=slow a run goes on for minutes, with =mistake, =crash and =killed it fails, and with
=crowded it does as one of several. One that finds a config.json fails as by a mistake.
"""

import json
import os
import signal
import sys
import time
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from common.signals import stop_with_parent


def train(flags: dict, several: bool) -> None:
    """One run."""
    folder, rate, label = Path(flags["workdir"]), float(flags["rate"]), flags.get("label")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "starts.txt").open("a") as starts:
        starts.write(" ".join(sys.argv[1:]) + "\n")
    print("a line", flush=True)
    if label == "mistake" or (folder / "config.json").exists():
        sys.exit(print("launch.py: --rate=9 cannot be", file=sys.stderr) or 2)
    if label == "crash" or (label == "crowded" and several):
        raise MemoryError("out of memory")
    if label == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if label == "slow" and not (folder / "go").exists():
        time.sleep(300)
    accuracy = 0.5 + rate / 20 + int(flags["seed"]) ** 2 / 100 * rate
    rows = [
        {
            "epoch": e,
            "step": 9 * e,
            "train/accuracy": accuracy * e / 2,
            "val/accuracy": 0.4,
            "train/loss": 1 / e,
        }
        for e in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = {
        "test/accuracy": accuracy, "test/loss": 1 - accuracy, "best_epoch": 2, "seconds": 1.5,
        "params": 12, "device": "1 x cpu", "precision": "float32", "jax": "0",
    }  # fmt: skip
    with zipfile.ZipFile(folder / "test_counts.npz", "w"):
        pass
    (folder / "summary.json").write_text(json.dumps(summary))


stop_with_parent()
given = dict(flag.removeprefix("--").partition("=")[::2] for flag in sys.argv[1:])
if "together" in given:
    for run in json.loads(Path(given["together"]).read_text())["runs"]:
        assert run["command"].startswith("python launch.py --task=toy")
        train(run["settings"] | {"workdir": run["workdir"]}, several=True)
else:
    train(given, several=False)

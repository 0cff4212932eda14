"""One of two processes of a toy run: python -m tests.toy_process FOLDER PORT ID STEP SIGNAL WHO.

After so many steps of its own the process WHO sends itself the signal.
"""

import os
import sys
from pathlib import Path

from common import loop, processes
from launch import end, run_to_exit_status
from tests.toy import counting, make_plan, patched


def main() -> None:
    folder, port, *numbers = sys.argv[1:]
    index, step, number, who = map(int, numbers)
    with processes.joined(f"127.0.0.1:{port}", 2, index):
        workdir = Path(folder) if processes.is_first() else processes.scratch_folder()
        plan, state = make_plan(workdir, device_count=0, epochs=4)
        if index == who:
            send = counting(plan.train_step, step, lambda: os.kill(os.getpid(), number))
            plan = patched(plan, train_step=send)
        loop.run(state, plan)


if __name__ == "__main__":
    end(run_to_exit_status(main))

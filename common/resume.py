"""Where a run that starts or is resumed begins: its newest checkpoint, and the best one."""

from dataclasses import asdict
from typing import Any

from common.errors import InputError
from common.plan import Plan, Progress
from common.state import TrainState
from common.writer import say, warn


def find_start(state: TrainState, like: Any, plan: Plan) -> tuple[TrainState, dict[str, Any]]:
    """The newest checkpoint's state and progress, or where there is none those of the start.

    The first process alone calls this, with the run folder claimed: it repairs the folder.

    Args:
        state: the first one.
        like: its shapes and types, as `Devices.abstract` gives them.
        plan: of the run.

    Raises:
        InputError: no checkpoint can be read, all are lost, or the best one of a finished run.
    """
    progress = Progress()
    plan.checkpoints.recover(like)
    if not plan.checkpoints.exists():
        _check_new(plan)
        return state, asdict(progress)
    state, saved = plan.checkpoints.resume(like)
    progress = Progress(**saved)
    total = plan.epochs * plan.steps_per_epoch
    done = int(state.step) - progress.epoch * plan.steps_per_epoch  # of the next epoch
    if not (0 < done <= plan.steps_per_epoch if progress.sums else done == 0):
        raise InputError(
            f"{plan.writer.folder} has {progress.epoch} finished epochs at step {int(state.step)}, "
            f"which are not of {plan.steps_per_epoch} steps: config.json or the data were changed; "
            "restore them from a copy"
        )
    say(f"resuming {plan.writer.folder} after step {int(state.step)} of {total}")
    if (rows := len(plan.writer.read_rows(progress.epoch))) < progress.epoch:
        warn(
            f"{plan.writer.folder}/metrics.jsonl has rows of {rows} of the {progress.epoch} "
            "finished epochs: curves and summary.json will lack the others"
        )
    if progress.best_epoch == progress.epoch > 0 and not progress.sums:
        plan.checkpoints.save("best", state, saved)
    _find_best(progress, like, plan)
    return state, asdict(progress)


def _check_new(plan: Plan) -> None:
    """InputError for a run that was further than its first epoch and has no checkpoint any more."""
    folder = plan.writer.folder
    if (finished := plan.writer.count_rows()) > 1:
        raise InputError(
            f"{folder} has {finished} finished epochs but no checkpoint any more: restore "
            f"{folder / 'checkpoints'} from a copy, or train in another --workdir"
        )


def _find_best(progress: Progress, like: Any, plan: Plan) -> None:
    """See that there is a best checkpoint, or that another can be selected."""
    step = progress.best_epoch * plan.steps_per_epoch
    if not step or plan.checkpoints.newest_step("best") == step:
        return
    if found := plan.checkpoints.find(step, progress.best_epoch, like):
        plan.checkpoints.save("best", *found)
        return
    if progress.epoch >= plan.epochs:
        raise InputError(
            f"{plan.writer.folder} has lost its best checkpoint, that of epoch "
            f"{progress.best_epoch}: restore it from a copy, or train in another --workdir"
        )
    warn("the best checkpoint is lost: the best of the epochs to come will be selected")
    progress.best_epoch, progress.best_score = 0, None

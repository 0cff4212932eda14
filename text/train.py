"""Train a term extractor and report on it."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from common import processes, run_folder
from common.checkpoint import Checkpoints
from common.parallel import local_devices
from common.plan import Plan, Progress, Session, summarise
from common.state import TrainState, count_parameters
from common.step import LossFn, make_train_step
from common.training import make_optimization, program_of, step_numbers, with_numbers
from common.writer import RunWriter, say
from text import batches, crf, decoding, report
from text.config import TextConfig
from text.extractor import crf_params, init_state
from text.models import Tagger
from text.preparation import Prepared, load_corpus, prepare, tell_start


def token_cross_entropy(emissions: Array, tags: Array, lengths: Array) -> Array:
    """Summed over the tokens of each sentence: float32 [B].

    Args:
        emissions: [B, T, K].
        tags: int32 [B, T].
        lengths: int32 [B].
    """
    real = jnp.arange(tags.shape[1]) < lengths[:, None]  # [B, T]
    logits = jnp.where(real[..., None], emissions, 0).astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tags)
    return (losses * real).sum(axis=1)


def make_loss_fn(model: Tagger) -> LossFn:
    """The negative log-likelihood of the gold tags of each sentence, by CRF or by softmax."""

    def loss_fn(params: Any, batch_stats: Any, batch: dict, key: Array) -> tuple[Array, tuple]:
        found: Any = model.apply({"params": params}, batch, train=True, rngs={"dropout": key})
        emissions, transitions = found
        tags, lengths = batch["tags"], batch["lengths"]
        if model.crf:
            losses = crf.loss(transitions, emissions, tags, lengths)
        else:
            losses = token_cross_entropy(emissions, tags, lengths)
        loss = (losses * batch["weight"]).sum()
        return loss, ({}, {"weight": batch["weight"].sum(), "loss": loss})

    return loss_fn


def make_plan(
    prepared: Prepared, checkpoints: Checkpoints, writer: RunWriter
) -> tuple[Plan, TrainState]:
    """What the loop needs, and the state before the first step (not yet on all devices)."""
    config, extractor, train = prepared.config, prepared.extractor, prepared.placed["train"]
    devices = extractor.devices
    steps = -(-len(train.lengths) // config.batch_size)
    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    loss_fn = make_loss_fn(extractor.model)

    def train_step(state: TrainState, data: dict, rows: dict, key: Array) -> tuple:
        tx, _ = make_optimization(with_numbers(config, data["numbers"]), steps)
        step = make_train_step(loss_fn, tx, ema_decay=config.ema, axis_name=devices.axis_name)
        return step(state, batches.assemble(data["split"], data["tables"], rows), key)

    has_val = bool(prepared.corpus.val)
    tx, schedule = make_optimization(config, steps)
    # Without chunks: buckets give neighbouring batches different shapes.
    plan = Plan(
        step=train_step,
        data=train.data | {"numbers": devices.replicate(step_numbers(config))},
        epoch_batches=lambda epoch: batches.epoch_batches(
            config.seed, epoch, train.lengths, train.widths, config.batch_size
        ),
        key=devices.replicate(train_key),
        evaluate=lambda state: validate(prepared, state) if has_val else {},
        schedule=schedule,
        devices=devices,
        checkpoints=checkpoints,
        writer=writer,
        epochs=config.epochs,
        steps_per_epoch=steps,
        batch_size=len(train.lengths) / steps,
        select="val/exact_f1" if has_val and config.selection == "best" else None,
        patience=config.patience,
        checkpoint_seconds=config.checkpoint_minutes * 60,
        onednn=extractor.pays_with_onednn,
        align=batches.same_width,
        unit="sentences",
        shown=("loss", "exact_f1"),
    )
    rng = np.random.default_rng((config.seed, 0, 3))
    embedding = extractor.lexicon.first_embedding(prepared.vectors, rng)
    return plan, init_state(config, extractor, tx, (init_key, embedding))


def validate(prepared: Prepared, state: TrainState) -> dict[str, float]:
    """Loss per sentence and scores of the validation split by a state on all devices.

    The terms are those of the best paths, which are quicker to find, whatever `decode` is.
    """
    extractor, split = prepared.extractor, prepared.splits["val"]
    emissions = prepared.scorer.emissions(state.variables, prepared.placed["val"])
    variables = extractor.devices.unreplicate(state.variables)
    transitions = crf_params(variables, len(extractor.scheme.tags))
    widths = prepared.placed["train"].decoding_widths
    tags = decoding.best_tags(transitions, emissions, extractor.allowed, widths)
    loss = decoding.losses(transitions, emissions, split.tags, widths).mean()
    return {"val/loss": float(loss), **report.score(extractor.scheme, split, tags, "val")}


def begin(config: TextConfig, workdir: Path, *, resume: bool, command: str) -> Session:
    """All of a run that comes before its first step.

    Args:
        config: a checked configuration.
        workdir: the run folder: new, or with `resume` perhaps that of a stopped run.
        resume: continue from the newest checkpoint, bit for bit.
        command: what was typed, for summary.json.
    """
    processes.from_first(lambda: run_folder.check_run(workdir, config, resume=resume))
    code = run_folder.describe_code(config)
    local_devices(config.devices).check_batch(config.batch_size)
    prepared = prepare(config, load_corpus(config), workdir)
    lexicon = prepared.extractor.lexicon
    writer = RunWriter(workdir)
    plan, state = make_plan(prepared, Checkpoints(workdir / "checkpoints"), writer)
    inputs = lexicon.to_json() | {"fingerprint": prepared.corpus.fingerprint}
    run_folder.open_run(workdir, config, inputs)
    first_command = run_folder.note_command(workdir, command)
    parameters = count_parameters(state.params) - lexicon.unread_values
    tell_start(prepared, parameters)
    say(f"run folder: {workdir}")
    facts = {"params": parameters, "command": first_command, **code}
    finish = partial(_finish, prepared, workdir, facts, plan)
    return Session(plan, state, finish, program_of(config))


def _finish(
    prepared: Prepared,
    workdir: Path,
    facts: dict[str, Any],
    plan: Plan,
    best: TrainState,
    progress: Progress,
) -> dict[str, Any]:
    """Score the selected state, write what a run leaves; `facts` are for summary.json."""
    config, extractor, test = prepared.config, prepared.extractor, prepared.splits["test"]
    with run_folder.scoring():
        transitions = crf_params(best.variables, len(extractor.scheme.tags))
        variables = extractor.devices.replicate(best.variables)
        emissions = prepared.scorer.emissions(variables, prepared.placed["test"])
        widths = prepared.placed["train"].decoding_widths
        test_tags = extractor.choose_tags(transitions, emissions, widths)
    summary = {
        "task": config.task,
        "config": config.config,
        "model": config.model,
        "cell": extractor.model.cell,
        "crf": config.crf,
        "embeddings": config.embeddings,
        "seed": config.seed,
        **summarise(plan, progress),
        **report.score(extractor.scheme, test, test_tags, "test"),
        "precision": extractor.precision,
        "corpus": prepared.facts,
        **facts,
    }
    report.tell(config, summary)
    counts = report.sentence_counts(extractor.scheme, test, test_tags)
    run_folder.write_summary(workdir, summary, counts)

    def draw() -> None:
        report.show_test(workdir, config, extractor, test, test_tags, transitions)
        report.draw(workdir, config, plan.writer.history, progress.best_epoch)

    run_folder.try_to_draw(workdir, draw)
    return summary

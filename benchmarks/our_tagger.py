"""Our tagger over a corpus, without PyTorch in the process: an epoch, a pass, and the problem."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from benchmarks.problems import TAGS
from common.batching import Rows
from common.checkpoint import Checkpoints
from common.plan import Plan
from common.state import TrainState
from common.writer import RunWriter
from text import decoding
from text.config import make_config
from text.extractor import crf_params
from text.preparation import Prepared, load_corpus, prepare
from text.train import make_loss_fn, make_plan

TEST_BATCH = 64  # sentences of a batch of the peer's prediction pass


def calls(
    data_dir: str | None,
    embeddings: str,
    hidden: int,
    batch_size: int,
    precision: str,
    devices: int = 1,
) -> dict[str, Callable]:
    """A training epoch and a prediction pass, and what torch_tagger.py needs to do the same.

    Args:
        data_dir, embeddings, batch_size, precision, devices: as launch.py's flags.
        hidden: units of a direction.
    """
    flags = {
        "crf": True,
        "hidden_size": str(hidden),
        "batch_size": batch_size,
        "precision": precision,
        "devices": devices,
        "recurrent_dropout": 0.0,  # nn.LSTM has none
        "data_dir": data_dir,
        "embeddings": embeddings,
    }
    config = make_config(flags)
    with tempfile.TemporaryDirectory() as folder:  # what is written there is read here only
        prepared = prepare(config, load_corpus(config, log=lambda line: None), Path(folder))
        plan, state = make_plan(
            prepared, Checkpoints(Path(folder) / "checkpoints"), RunWriter(Path(folder))
        )
    params = jax.device_get(state.params)
    made = make_problem(prepared, plan)
    loss = first_loss(prepared, plan, state, made["train"][0])
    held = [plan.devices.replicate(state)]  # which the first step gives away

    def epoch() -> None:
        for rows in plan.epoch_batches(0):
            held[0], sums = plan.train_step(held[0], plan.data, plan.devices.shard(rows), plan.key)
        jax.block_until_ready(sums)

    def predict() -> list[np.ndarray]:
        emissions = prepared.scorer.emissions(held[0].variables, prepared.placed["test"])
        variables = plan.devices.unreplicate(held[0].variables)
        transitions = crf_params(jax.device_get(variables), TAGS)
        return decoding.best_tags(transitions, emissions, None)

    return {
        "problem": lambda: made,
        "parameters": lambda: flatten_dict(params, sep="."),
        "loss": lambda: loss,
        "training epoch": epoch,
        "prediction pass": predict,
    }


def make_problem(prepared: Prepared, plan: Plan) -> dict[str, Any]:
    """What both sides do: batches "train" and "test", "vectors" [V, D], and what to train with."""
    config, test = prepared.config, prepared.placed["test"]
    by_length = np.array_split(
        np.argsort(test.lengths), max(1, len(prepared.corpus.test) // TEST_BATCH)
    )
    test_rows = [{"index": index, "weight": np.ones(len(index))} for index in by_length]
    return {
        "train": cut_batches(prepared, "train", plan.epoch_batches(0)),
        "test": cut_batches(prepared, "test", test_rows),
        "vectors": prepared.vectors.matrix,
        "embedding_dropout": config.embedding_dropout,
        "dropout": config.dropout or 0.0,
        "learning_rate": config.learning_rate,
        "clip": config.clip,
    }


def cut_batches(prepared: Prepared, name: str, batches: list[Rows]) -> list[tuple]:
    """(tokens, tags, lengths), all int64, of each of our batches, cut to its longest sentence."""
    devices = prepared.extractor.devices
    split = jax.device_get(devices.unreplicate(prepared.placed[name].data["split"]))
    found = []
    for rows in batches:
        index = rows["index"][rows["weight"] > 0]
        index = index[split["lengths"][index] > 0]
        lengths = split["lengths"][index].astype(np.int64)
        cut = (split[key][index, : lengths.max()].astype(np.int64) for key in ("tokens", "tags"))
        found.append((*cut, lengths))
    return found


def first_loss(prepared: Prepared, plan: Plan, state: TrainState, batch: tuple) -> float:
    """Without dropout, the mean of the sentences of a batch of `cut_batches`, before training."""
    tokens, tags, lengths = (part.astype(np.int32) for part in batch)
    tables: Any = plan.devices.unreplicate(plan.data["tables"])
    words = tables | {"tokens": tokens, "tags": tags, "lengths": lengths}
    dry = prepared.extractor.model.clone(embedding_dropout=0.0, output_dropout=0.0, axis_name=None)
    weight = np.ones(len(lengths), np.float32)
    loss, _ = make_loss_fn(dry)(state.params, {}, words | {"weight": weight}, jax.random.key(0))
    return float(loss) / len(lengths)

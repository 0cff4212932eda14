"""How fast is a tagger? A training epoch and a prediction pass, against packed nn.LSTM.

    python -m benchmarks tagger [--data_dir=FOLDER] [--embeddings=...]

One bidirectional LSTM, dropout, a CRF, Adam with clipping, frozen vectors (GloVe). Both sides
train on the same sentences in the same batches; PyTorch's are cut to their own longest sentence
and packed, ours padded to one of four widths, of which loops over time on a CPU make the steps to
the longest sentence. Batches are of similar lengths, which spares both sides padding. Hidden
layers that `--precision=auto` may give bfloat16 are timed in that too, PyTorch's by autocast. A
loss is compared, with PyTorch's in float32, before anything is timed. Ours is timed with all it
does on the host; neither with compilation. An epoch that takes more than ten seconds is timed
once, others in three interleaved rounds.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

from benchmarks import our_steps, torch_steps
from benchmarks.device import prepare_both
from benchmarks.process import ROOT
from benchmarks.report import Row, Tables, measure
from benchmarks.timing import time_sides
from benchmarks.torch_models import DEVICE, Packed, make_mask
from common.batching import Rows
from common.checkpoint import Checkpoints
from common.plan import Plan
from common.state import TrainState
from common.writer import RunWriter
from text import decoding
from text.config import TextConfig, make_config
from text.extractor import WIDE_UNITS, crf_params
from text.preparation import Prepared, load_corpus, prepare
from text.train import make_loss_fn, make_plan

HIDDEN = (32, 128, 512)
BATCHES = (64, 16)
LAPTOP14 = ROOT.parent / "shared" / "data" / "semeval" / "laptop14"
SLOW_SECONDS = 10.0
PRECISIONS = ("float32", "bfloat16")
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2}  # of the first loss


def copy_weights(params: dict[str, Any], model: Packed) -> None:
    """Give the peer the parameters of our tagger, of one layer."""
    layer, head, crf = params["encoder"]["layer1"], params["head"], params["crf"]
    values = {
        "head.weight": head["kernel"].T,
        "head.bias": head["bias"],
        "crf.transitions": crf["transitions"],
        "crf.start_transitions": crf["start"],
        "crf.end_transitions": crf["end"],
    }
    for direction, suffix in (("forward", ""), ("backward", "_reverse")):
        part = layer[direction]
        values |= {
            f"lstm.weight_ih_l0{suffix}": part["input"]["kernel"].T,
            f"lstm.weight_hh_l0{suffix}": part["recurrent"]["kernel"].T,
            f"lstm.bias_ih_l0{suffix}": part["input"]["bias"],
            f"lstm.bias_hh_l0{suffix}": np.zeros_like(part["input"]["bias"]),
        }
    model.load_state_dict({n: torch.from_numpy(np.array(v)) for n, v in values.items()})


def torch_batches(prepared: Prepared, name: str, batches: list[Rows]) -> list[tuple]:
    """(tokens, tags, lengths) of each of our batches, cut to its longest sentence."""
    split = jax.device_get(prepared.placed[name].data["split"])
    found = []
    for rows in batches:
        index = rows["index"][rows["weight"] > 0]
        index = index[split["lengths"][index] > 0]
        lengths = split["lengths"][index].astype(np.int64)
        cut = (split[key][index, : lengths.max()].astype(np.int64) for key in ("tokens", "tags"))
        tokens, tags = (torch.from_numpy(part).to(DEVICE) for part in cut)
        found.append((tokens, tags, torch.from_numpy(lengths)))
    return found


def our_calls(prepared: Prepared, plan: Plan, state: TrainState) -> dict[str, Callable[[], Any]]:
    """An epoch of updates, and the tags of the test sentences."""
    held = [plan.devices.replicate(state)]

    def epoch() -> None:
        for rows in plan.epoch_batches(0):
            held[0], sums = plan.train_step(held[0], plan.data, plan.devices.shard(rows), plan.key)
        jax.block_until_ready(sums)

    def predict() -> list[np.ndarray]:
        emissions = prepared.scorer.emissions(held[0].variables, prepared.placed["test"])
        transitions = crf_params(jax.device_get(held[0].variables), 3)
        return decoding.best_tags(transitions, emissions, None)

    return {"training epoch": epoch, "prediction pass": predict}


def torch_calls(model: Packed, config: TextConfig, train: list, test: list) -> dict[str, Callable]:
    """The same of the peer."""
    autocast = partial(
        torch.autocast, DEVICE.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16"
    )
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate)

    def epoch() -> None:
        model.train()
        for batch in train:
            optimizer.zero_grad()
            with autocast():
                loss = model.loss(*batch)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()

    def predict() -> list:
        model.eval()
        with torch.no_grad(), autocast():
            return [
                model.crf.decode(
                    model.emissions(tokens, lengths),
                    mask=make_mask(lengths, tokens.shape[1]),
                )
                for tokens, _, lengths in test
            ]

    return {"training epoch": torch_steps.waiting(epoch), "prediction pass": predict}


def check(prepared: Prepared, plan: Plan, state: TrainState, model: Packed, batch: tuple) -> None:
    """Raise an AssertionError unless both sides have the same loss of the same weights."""
    copy_weights(jax.device_get(state.params), model)
    model.eval()
    tokens, tags, lengths = (part.cpu().numpy().astype(np.int32) for part in batch)
    tables: Any = plan.data["tables"]
    words = tables | {"tokens": tokens, "tags": tags, "lengths": lengths}
    dry = prepared.extractor.model.clone(embedding_dropout=0.0, output_dropout=0.0)
    weight = np.ones(len(lengths), np.float32)
    loss, _ = make_loss_fn(dry)(state.params, {}, words | {"weight": weight}, jax.random.key(0))
    np.testing.assert_allclose(
        float(loss) / len(lengths),
        float(model.loss(*batch).detach()),
        rtol=TOLERANCES["bfloat16" if DEVICE.type != "cpu" else prepared.extractor.precision],
    )


def check_made_up(hidden: int, batch_size: int, length: int) -> None:
    """Raise an AssertionError unless the steps that memory.py measures have the same losses."""
    ours = our_steps.Trainer(our_steps.tagger(hidden, batch_size, length))
    theirs = torch_steps.TaggerStep(hidden, batch_size, length)
    copy_weights(jax.device_get(ours.state.params), theirs.model)
    np.testing.assert_allclose(ours(), theirs(), rtol=1e-4)
    np.testing.assert_allclose(ours(), theirs(), rtol=1e-2)


def compare(
    data_dir: str | None, embeddings: str, hidden: int, batch_size: int, precision: str
) -> list[Row]:
    """Both operations at one size."""
    flags = {
        "crf": True,
        "hidden_size": str(hidden),
        "batch_size": batch_size,
        "precision": precision,
        "recurrent_dropout": 0.0,  # nn.LSTM has none
    }
    config = make_config(flags | {"data_dir": data_dir, "embeddings": embeddings})
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(config, load_corpus(config, log=lambda line: None), Path(folder))
        plan, state = make_plan(
            prepared, Checkpoints(Path(folder) / "checkpoints"), RunWriter(Path(folder))
        )
        test_rows = [
            {"index": index, "weight": np.ones(len(index))}
            for index in np.array_split(
                np.argsort(prepared.placed["test"].lengths), max(1, len(prepared.corpus.test) // 64)
            )
        ]
        train = torch_batches(prepared, "train", plan.epoch_batches(0))
        test = torch_batches(prepared, "test", test_rows)
        unknown = jax.device_get(state.params)["embedding"][:1]  # learnt by ours, fixed for theirs
        vectors = np.where(prepared.vectors.found[:, None], prepared.vectors.matrix, unknown)
        model = Packed(
            hidden,
            vectors,
            3,
            embedding_dropout=config.embedding_dropout,
            dropout=config.dropout or 0.0,
        ).to(DEVICE)
        check(prepared, plan, state, model, train[0])
        ours, theirs = our_calls(prepared, plan, state), torch_calls(model, config, train, test)
        rows = []
        for name in ours:
            sides = {"athanor": ours[name], "packed nn.LSTM + pytorch-crf": theirs[name]}
            for side in sides.values():
                side()
            rows.append(Row(name, time_sides(sides, rounds=3, slow_seconds=SLOW_SECONDS)))
        return rows


def find_corpus(data_dir: str | None) -> str | None:
    """The corpus given; without, laptop14 where it is at hand, else None, the embedded reviews."""
    return data_dir or (str(LAPTOP14) if LAPTOP14.is_dir() else None)


def main(data_dir: str | None = None, embeddings: str = "glove") -> Tables:
    """Time every size, print it as it comes.

    Args:
        data_dir: see `find_corpus`.
        embeddings: as launch.py's flag.
    """
    prepare_both()
    corpus = find_corpus(data_dir)
    name = Path(corpus).name if corpus else "embedded reviews"
    tables = {}
    for batch_size in BATCHES:
        for hidden in HIDDEN:
            for precision in PRECISIONS if hidden >= WIDE_UNITS else PRECISIONS[:1]:
                title = f"{name}, hidden {hidden}, batch {batch_size}, {precision}"
                tables[title] = partial(compare, corpus, embeddings, hidden, batch_size, precision)
    return measure(tables)


if __name__ == "__main__":
    main()

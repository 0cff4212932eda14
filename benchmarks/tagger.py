"""How fast is a tagger? A training epoch and a prediction pass, against packed nn.LSTM.

    python -m benchmarks.tagger [--data_dir=FOLDER]     # SemEval's laptop14, say

One bidirectional LSTM, dropout, a CRF, Adam with clipping, frozen GloVe vectors. Both sides
train on the same sentences in the same batches; PyTorch's are cut to their own longest sentence
and packed, ours padded to one of four widths. A loss is compared before anything is timed. Ours
is timed with all it does on the host; neither with compilation.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import torchcrf
from torch import nn

from benchmarks.report import Row, show
from benchmarks.timing import time_sides
from common.batching import Rows
from common.checkpoint import Checkpoints
from common.host import keep_freed_memory
from common.loop import Plan
from common.state import TrainState
from common.writer import RunWriter
from text import decoding
from text.config import TextConfig, make_config
from text.extractor import crf_params
from text.preparation import Prepared, load_corpus, prepare
from text.train import make_loss_fn, make_plan

HIDDEN = (32, 128, 512)
BATCHES = (64, 16)


class Packed(nn.Module):
    """The peer: a packed bidirectional nn.LSTM under pytorch-crf."""

    def __init__(self, config: TextConfig, vectors: np.ndarray, num_tags: int):
        super().__init__()
        (hidden,) = config.hidden_sizes
        self.vectors = torch.from_numpy(vectors)
        self.before, self.after = nn.Dropout(config.embedding_dropout), nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(vectors.shape[1], hidden, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, num_tags)
        self.crf = torchcrf.CRF(num_tags, batch_first=True)

    def emissions(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Float32 [B, T, K] for tokens int64 [B, T] and lengths int64 [B]."""
        x = self.before(self.vectors[tokens])
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        h, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.head(self.after(h))

    def loss(self, tokens: torch.Tensor, tags: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The mean negative log-likelihood of a sentence."""
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        return -self.crf(self.emissions(tokens, lengths), tags, mask=mask, reduction="mean")

    def take(self, params: dict[str, Any]) -> None:
        """Set the parameters to those of our tagger."""
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
        self.load_state_dict({n: torch.from_numpy(np.array(v)) for n, v in values.items()})


def torch_batches(prepared: Prepared, name: str, batches: list[Rows]) -> list[tuple]:
    """(tokens, tags, lengths) of each of our batches, cut to its longest sentence."""
    split = jax.device_get(prepared.placed[name].data["split"])
    found = []
    for rows in batches:
        index = rows["index"][rows["weight"] > 0]
        index = index[split["lengths"][index] > 0]
        lengths = split["lengths"][index].astype(np.int64)
        cut = (split[key][index, : lengths.max()].astype(np.int64) for key in ("tokens", "tags"))
        found.append(tuple(torch.from_numpy(part) for part in (*cut, lengths)))
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
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate)

    def epoch() -> None:
        model.train()
        for batch in train:
            optimizer.zero_grad()
            model.loss(*batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()

    def predict() -> list:
        model.eval()
        with torch.no_grad():
            return [
                model.crf.decode(
                    model.emissions(tokens, lengths),
                    mask=torch.arange(tokens.shape[1]) < lengths[:, None],
                )
                for tokens, _, lengths in test
            ]

    return {"training epoch": epoch, "prediction pass": predict}


def check(prepared: Prepared, plan: Plan, state: TrainState, model: Packed, batch: tuple) -> None:
    """Raise an AssertionError unless both sides have the same loss of the same weights."""
    model.take(jax.device_get(state.params))
    model.eval()
    tokens, tags, lengths = (part.numpy().astype(np.int32) for part in batch)
    tables: Any = plan.data["tables"]
    words = tables | {"tokens": tokens, "tags": tags, "lengths": lengths}
    dry = prepared.extractor.model.clone(embedding_dropout=0.0, output_dropout=0.0)
    weight = np.ones(len(lengths), np.float32)
    loss, _ = make_loss_fn(dry)(state.params, {}, words | {"weight": weight}, jax.random.key(0))
    np.testing.assert_allclose(
        float(loss) / len(lengths), float(model.loss(*batch).detach()), rtol=1e-5
    )


def compare(data_dir: str | None, hidden: int, batch_size: int) -> list[Row]:
    """Both operations at one size."""
    flags = {
        "crf": True,
        "hidden_size": str(hidden),
        "batch_size": batch_size,
        "recurrent_dropout": 0.0,
    }
    config = make_config(flags | {"data_dir": data_dir})
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
        model = Packed(config, vectors, 3)
        check(prepared, plan, state, model, train[0])
        ours, theirs = our_calls(prepared, plan, state), torch_calls(model, config, train, test)
        case = f"{{}}, {prepared.corpus.name}, hidden {hidden}, batch {batch_size}"
        return [
            Row(
                case.format(name),
                time_sides(
                    {"athanor": ours[name], "packed nn.LSTM + pytorch-crf": theirs[name]},
                    rounds=3,
                ),
            )
            for name in ours
        ]


def main(data_dir: str | None = None) -> dict[str, list[Row]]:
    """Time every size, print it as it comes."""
    keep_freed_memory()
    rows = []
    for batch_size in BATCHES:
        for hidden in HIDDEN:
            rows += compare(data_dir, hidden, batch_size)
            show("tagger", rows[-2:])
    return {"tagger": rows}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", help="a corpus; without, the embedded reviews")
    main(parser.parse_args().data_dir)

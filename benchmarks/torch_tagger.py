"""The peer's tagger over a corpus, in PyTorch alone: packed nn.LSTM with pytorch-crf."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.problems import TAGS
from benchmarks.torch_models import DEVICE, Packed, make_mask
from benchmarks.torch_steps import load_tagger, waiting


def calls(problem: Mapping[str, Any], hidden: int, precision: str) -> dict[str, Callable]:
    """An epoch, a pass and a loss as `our_tagger.calls` has them, and "load" for its "parameters".

    Args:
        problem: what its "problem" returns.
        hidden, precision: see there; bfloat16 is by autocast.
    """
    train, test = (
        [
            (torch.from_numpy(tokens).to(DEVICE), torch.from_numpy(tags).to(DEVICE),
             torch.from_numpy(lengths))
            for tokens, tags, lengths in problem[name]
        ]
        for name in ("train", "test")
    )  # fmt: skip
    dropouts = {name: problem[name] for name in ("embedding_dropout", "dropout")}
    model = Packed(hidden, problem["vectors"], TAGS, **dropouts).to(DEVICE)
    half = precision == "bfloat16"
    autocast = partial(torch.autocast, DEVICE.type, dtype=torch.bfloat16, enabled=half)
    optimizer = torch.optim.Adam(model.parameters(), problem["learning_rate"])

    def epoch() -> None:
        model.train()
        for batch in train:
            optimizer.zero_grad()
            with autocast():
                loss = model.loss(*batch)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), problem["clip"])
            optimizer.step()

    def predict() -> list:
        model.eval()
        with torch.no_grad(), autocast():
            return [
                model.crf.decode(
                    model.emissions(tokens, lengths), mask=make_mask(lengths, tokens.shape[1])
                )
                for tokens, _, lengths in test
            ]

    def first_loss() -> float:
        model.eval()
        return model.loss(*train[0]).item()

    return {
        "load": partial(load_tagger, model),
        "loss": first_loss,
        "training epoch": waiting(epoch),
        "prediction pass": predict,
    }

"""Finished runs read back, alone or several averaged; and `--mode=eval`, which scores them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import config as configs
from common import run_folder
from common.checkpoint import Checkpoints
from common.errors import InputError
from common.training import make_optimization
from common.writer import say, warn
from text import corpora, report
from text.config import TextConfig, check_config
from text.crf import CRFParams
from text.extractor import (
    Extractor,
    Placed,
    Scorer,
    Tokenized,
    crf_params,
    init_state,
    make_config_lexicon,
    make_extractor,
    tokenize_all,
)
from text.packed_vectors import open_packed
from text.vocab import Characters, Vocabulary

DATA = ("test_file", "data_dir", "columns", "merge_repeated")  # what says where test data are
# Settings in which averaged runs must agree: emissions are averaged token by token. Those of the
# second line may be given anew for all.
SHARED = ("tokenizer", "tags", "remove_stop_words", "max_length")
CHANGEABLE = ("constrained", "decode")


class TrainedExtractor:
    """A run read back: its extractor and the selected weights, on the devices."""

    def __init__(self, run: Path, changes: dict[str, Any]):
        """Read a run folder; nothing else is needed.

        Args:
            run: the folder.
            changes: settings that may differ from the run's: where the data and devices are.

        Raises:
            InputError: it is no run folder of this task, or has no checkpoint.
        """
        config = configs.override(configs.load(TextConfig, run / "config.json"), changes)
        check_config(config)
        inputs = run_folder.load_inputs(run, ("words", "characters"))
        try:
            words = Vocabulary.from_json(inputs["words"])
            characters = Characters.from_json(inputs["characters"])
        except InputError as error:
            raise InputError(f"{run / 'inputs.json'}: {error}: copy the run again") from None
        vectors = open_packed(run / "vectors", log=warn)
        lexicon = make_config_lexicon(config, words, vectors, characters)
        self.config: TextConfig = config
        self.extractor: Extractor = make_extractor(config, lexicon)
        # The optimiser only gives the checkpoint its shape, which no number of steps changes.
        tx, _ = make_optimization(config, steps=10_000)
        like = self.extractor.devices.abstract(init_state(config, self.extractor, tx))
        state, _ = Checkpoints(run / "checkpoints").restore("best", like)
        self.transitions = crf_params(state.variables, len(self.extractor.scheme.tags))
        self._variables = self.extractor.devices.replicate(state.variables)
        self._scorer = Scorer(self.extractor)

    def emissions(self, split: Tokenized) -> list[np.ndarray]:
        """Emissions float32 [T, K] of every sentence."""
        words = Vocabulary.build(split.words)
        lexicon, devices = self.extractor.lexicon, self.extractor.devices
        tables = devices.replicate(lexicon.tables(lexicon.look_up(words)))
        placed = Placed(split, words, tables, devices)
        return self._scorer.emissions(self._variables, placed)


class Ensemble:
    """One or several runs; the scores of their taggings are averaged."""

    def __init__(self, runs: Sequence[Path], changes: dict[str, Any]):
        """Args as of `TrainedExtractor`. Raises InputError if the runs do not fit together."""
        self.members = [TrainedExtractor(run, changes) for run in runs]
        first = self.members[0]
        for run, member in zip(runs, self.members, strict=True):
            for name in SHARED + CHANGEABLE:
                if getattr(member.config, name) != getattr(first.config, name):
                    remedy = "runs that are averaged must cut and tag sentences alike"
                    if name in CHANGEABLE:
                        remedy = f"give --{name}, which then holds for all"
                    raise InputError(f"--run={run} has another --{name} than {runs[0]}: {remedy}")
        self.config, self.extractor = first.config, first.extractor
        parts = zip(*(member.transitions for member in self.members), strict=True)
        self.transitions = CRFParams(*(np.mean(part, axis=0) for part in parts))

    def emissions(self, split: Tokenized) -> list[np.ndarray]:
        """Mean emissions float32 [T, K] of every sentence.

        The score of a tagging is linear in emissions and transitions, so averaging both
        averages the scores that the runs give to every tagging.
        """
        made = zip(*(member.emissions(split) for member in self.members), strict=True)
        return [np.mean(rows, axis=0) for rows in made]

    def tokenize(self, sentences: Sequence[Any]) -> Tokenized:
        """Tokens and gold tags of sentences."""
        return tokenize_all(sentences, self.extractor.tokenize, self.extractor.scheme)


def _own_data(runs: Sequence[Path], ensemble: Ensemble) -> dict[str, Any]:
    """Where the runs' test data are; of runs with different ones those of the first are taken."""
    own = [member.config for member in ensemble.members]
    places = [os.path.realpath(one.test_file or one.data_dir or "embedded") for one in own]
    for run, place in zip(runs, places, strict=True):
        if place != places[0]:
            warn(f"{run} has other test data than {runs[0]}, whose are scored: --test_file chooses")
    return {name: getattr(own[0], name) for name in DATA}


def evaluate(runs: Sequence[Path], changes: dict[str, Any], *, as_json: bool) -> dict[str, float]:
    """Score the test split, print the scores and return them.

    Args:
        runs: run folders; of several the scores are averaged.
        changes: settings that may differ from the runs'.
        as_json: print one line of JSON instead of a table.
    """
    where = {name: value for name, value in changes.items() if name in DATA}
    ensemble = Ensemble(runs, {name: changes[name] for name in changes.keys() - where.keys()})
    if not {"test_file", "data_dir"} & set(where):  # else those of the run are not meant
        where = _own_data(runs, ensemble) | where
    path, sentences = corpora.load_test(**where, log=warn)
    split = ensemble.tokenize(sentences)
    emissions = ensemble.emissions(split)
    extractor = ensemble.extractor
    tags = extractor.choose_tags(ensemble.transitions, emissions)
    scores = report.score(extractor.scheme, split, tags, "test")
    if as_json:
        say(json.dumps(scores))
        return scores
    averaged = f", {len(runs)} runs averaged" if len(runs) > 1 else ""
    say(f"{path}{averaged}")
    report.tell_facts("test", report.facts(extractor.scheme, split), ensemble.config)
    report.tell_scores(scores, "test", ensemble.config.decode)
    return scores

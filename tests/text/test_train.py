"""The real train step: one device and eight, shapes compiled, what is learnt, a whole run."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from common import loop
from common.checkpoint import Checkpoints
from common.errors import InputError
from common.writer import RunWriter
from tests.toy import assert_same
from text import train as training
from text.batches import SCORING_TOKENS, scoring_batches
from text.config import make_config
from text.corpora import Corpus
from text.preparation import prepare
from text.sentences import Sentence, Span

SMALL = {
    "embeddings": "random", "embedding_size": 12, "hidden_size": "6", "batch_size": 8,
    "devices": 1, "precision": "float32", "warmup_epochs": 0.0,
}  # fmt: skip
NOUNS = ("battery", "screen", "hard disk", "service", "food", "Wi-Fi")
FROZEN = {"embeddings": "words.vec", "embedding_size": None}


@pytest.fixture
def vectors(tmp_path, monkeypatch):
    """The file of `FROZEN`; "Wi-Fi" and "very" are in none."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(8)
    for word in ("battery", "screen", "hard", "disk", "service", "food", "the", "no"):
        with Path("words.vec").open("a") as file:
            file.write(" ".join([word, *map(str, rng.normal(size=12))]) + "\n")


def make_corpus(size=64, val=12, longest=5):
    """Sentences in which a noun is a term unless `no` stands before it."""
    rng = np.random.default_rng(4)
    sentences = []
    for number in range(size + 2 * val):
        text, spans = "", []
        for _ in range(rng.integers(1, longest)):
            noun, negated = str(rng.choice(NOUNS)), rng.random() < 0.3
            text += "no " if negated else str(rng.choice(["the ", "very ", ""]))
            if not negated:
                spans.append(Span(len(text), len(text) + len(noun)))
            text += noun + " "
        sentences.append(Sentence(str(number), text, tuple(spans)))
    cuts = (tuple(sentences[:size]), tuple(sentences[size : size + val]), tuple(sentences[-val:]))
    return Corpus("nouns", *(cuts if val else (cuts[0], (), cuts[0][:12])), "memory", "none")


def make(folder, corpus, **flags):
    """(plan, first state, extractor) of a configuration."""
    prepared = prepare(make_config(SMALL | flags), corpus, folder)
    parts = (Checkpoints(folder / "checkpoints"), RunWriter(folder))
    plan, state = training.make_plan(prepared, *parts)
    return plan, jax.device_get(state), prepared.extractor


def take_steps(plan, state, steps, repeat=None):
    """Losses of the steps and the state after them, on the host."""
    state, losses = plan.devices.replicate(state), []
    batches = [rows for epoch in range(9) for rows in plan.epoch_batches(epoch)][:steps]
    for rows in [batches[repeat]] * steps if repeat is not None else batches:
        state, sums = plan.train_step(state, plan.data, plan.devices.shard(rows), plan.key)
        sums = jax.device_get(plan.devices.unreplicate(sums))
        losses.append(sums["loss"] / sums["weight"])
    return np.array(losses), jax.device_get(plan.devices.unreplicate(state))


@pytest.mark.parametrize("crf", [True, False])
def test_one_device_and_eight_give_the_same_losses(tmp_path, crf):
    flags = {
        "crf": crf, "chars": "cnn", "word_shapes": True, "recurrent_dropout": 0.2,
        "word_dropout": 0.2, "clip": 5.0, "learning_rate": 1e-3,
    }  # fmt: skip
    corpus = make_corpus()
    plan, state, _ = make(tmp_path / "1", corpus, **flags)
    plan_8, _, _ = make(tmp_path / "8", corpus, **flags | {"devices": 8})
    losses, last = take_steps(plan, state, 20)
    losses_8, last_8 = take_steps(plan_8, state, 20)
    np.testing.assert_allclose(losses, losses_8, rtol=1e-5, atol=0)
    for a, b in zip(jax.tree.leaves(last.params), jax.tree.leaves(last_8.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    assert len(set(losses)) == 20


def test_an_epoch_compiles_one_step_for_each_width(tmp_path, caplog):
    corpus = make_corpus(size=200, longest=20)
    plan, state, _ = make(tmp_path, corpus, crf=True)
    widths = {rows["column"].shape for epoch in range(2) for rows in plan.epoch_batches(epoch)}
    assert 1 < len(widths) <= 4
    with jax.log_compiles():
        take_steps(plan, state, 2 * plan.steps_per_epoch)
    compiled = [line for line in caplog.messages if "XLA compilation of jit(train_step)" in line]
    assert len(compiled) == len(widths)


@pytest.mark.parametrize(
    "steps, flags",
    [
        (15, {"crf": True, "chars": "lstm", "cell": "gru", "hidden_size": "6,5"}),
        (15, {"crf": True, **FROZEN}),
        (25, {"crf": False, "cell": "rnn", "merge": "sum", "tags": "io"}),
        (15, {"crf": True, "model": "decnn", "hidden_size": None, "dropout": 0.1, "tags": "bioes"}),
    ],
)
@pytest.mark.usefixtures("vectors")
def test_a_step_moves_every_leaf_and_a_repeated_batch_is_learnt(tmp_path, steps, flags):
    settings = {"word_dropout": 0.1, "ema": 0.9, "schedule": "constant", "learning_rate": 2e-2}
    plan, state, _ = make(tmp_path, make_corpus(), **settings | flags)
    _, after = take_steps(plan, state, 2 * plan.steps_per_epoch)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(after), strict=True
    ):
        assert (a != b).any(), jax.tree_util.keystr(path)
    losses, _ = take_steps(plan, state, steps, repeat=0)
    assert losses[-3:].mean() < 0.8 * losses[0]


def test_padding_sentences_change_nothing(tmp_path):
    plan, state, _ = make(tmp_path, make_corpus(size=61), crf=True, dropout=0.0)
    (rows,) = (rows for rows in plan.epoch_batches(0) if not rows["weight"].all())
    other = rows | {"index": np.where(rows["weight"] > 0, rows["index"], 7)}
    (state_1, sums_1), (state_2, sums_2) = (
        plan.train_step(state, plan.data, r, plan.key) for r in (rows, other)
    )
    assert sums_1["weight"] == 61 % 8 and sums_1 == sums_2
    assert_same(state_1.params, state_2.params)


def test_token_cross_entropy_is_summed_over_real_tokens():
    rng = np.random.default_rng(0)
    emissions, tags = rng.normal(size=(3, 4, 5)), rng.integers(0, 5, (3, 4))
    lengths = np.array([4, 0, 2])
    log_p = emissions - np.log(np.exp(emissions).sum(-1, keepdims=True))
    expected = [-sum(log_p[b, t, tags[b, t]] for t in range(n)) for b, n in enumerate(lengths)]
    emissions[2, 2:] = np.nan
    found = training.token_cross_entropy(emissions.astype(np.float32), tags, lengths)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("val, select", [(12, "best"), (12, None), (0, "best")])
@pytest.mark.usefixtures("vectors")
def test_a_whole_run(tmp_path, kept_programs, monkeypatch, capsys, val, select):
    corpus = make_corpus(val=val)
    monkeypatch.setattr(training, "load_corpus", lambda config: corpus)
    flags = {"crf": True, "epochs": 3, "select": select, "val_fraction": 0.1 if val else 0.0}
    workdir = tmp_path / "run"
    config = make_config(SMALL | flags | ({} if select else FROZEN))
    summary = loop.train(
        training.begin(config, workdir, resume=False, command="python launch.py ...")
    )
    told = capsys.readouterr().out
    assert "F1 1.0000" in told and f"{val} sentences" in told and "exact span (official)" in told
    assert ("\nval, --decode=path " in told) == bool(val) and "\ntest, --decode=terms " in told
    assert summary == json.loads((workdir / "summary.json").read_text())
    needed = {
        "task", "model", "seed", "config", "best_epoch", "test/exact_precision",
        "test/exact_recall", "test/exact_f1", "test/token_f1", "test/keyword_f1", "params",
        "sentences_per_second", "seconds", "command", "jax", "device",
    }  # fmt: skip
    assert needed <= set(summary) and ("val/exact_f1" in summary) == bool(val)
    assert summary["settings"] == dataclasses.asdict(config)
    assert len(summary["corpus"]["vectors_fingerprint"]) == 16 and summary["corpus"]["fingerprint"]
    assert set(summary["corpus"]["test"]) == {"sentences", "spans", "ceiling"}
    assert summary["corpus"]["train"]["sentences"] == 64
    for name, counts in np.load(workdir / "test_counts.npz").items():
        gold, found, right = counts.sum(axis=0)
        assert 2 * right / (gold + found) == pytest.approx(summary[f"test/{name}"])
        assert len(counts) == summary["corpus"]["test"]["sentences"]
    if select != "best" or not val:
        assert summary["best_epoch"] == 3
    else:
        rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        scores = [row["val/exact_f1"] for row in rows]
        assert summary["best_epoch"] == 1 + int(np.argmax(scores))
    names = {path.name for path in workdir.iterdir()}
    assert names >= {"curves.png", "tag_confusion.png", "transitions.png", "predictions.xml"}
    assert names >= {"errors.md", "vectors", "config.json", "inputs.json", "checkpoints"}


def test_more_in_a_batch_than_there_is(tmp_path):
    config = make_config(SMALL | {"batch_size": 65})
    with pytest.raises(InputError, match="--batch_size=65 is larger than the 64 training"):
        prepare(config, make_corpus(), tmp_path)


def test_vectors_of_other_words_are_refused(tmp_path):
    path = tmp_path / "other.vec"
    path.write_text("Zeile 1 2 3\nWort 4 5 6\n")
    config = make_config(SMALL | {"embeddings": str(path), "embedding_size": None})
    with pytest.raises(InputError, match="other.vec: no word of the training sentences has a"):
        prepare(config, make_corpus(), tmp_path / "run")


def test_patience_without_validation(tmp_path):
    with pytest.raises(InputError, match="--patience needs validation data"):
        prepare(make_config(SMALL | {"patience": 1}), make_corpus(val=0), tmp_path)


def test_other_test_sentences_change_no_first_weight(tmp_path):
    corpus = make_corpus()
    other = dataclasses.replace(corpus, test=(Sentence("x", "an unseen word", (Span(3, 9),)),))
    _, state, _ = make(tmp_path / "1", corpus, crf=True)
    _, state_2, _ = make(tmp_path / "2", other, crf=True)
    assert_same(state, state_2)


def test_other_test_sentences_change_no_validation_score(tmp_path):
    corpus = make_corpus()
    longer = dataclasses.replace(corpus, test=make_corpus(longest=30).test)
    scores = []
    for name, given in (("1", corpus), ("2", longer)):
        plan, state, _ = make(tmp_path / name, given, crf=True)
        scores.append(plan.evaluate(plan.devices.replicate(state)))
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def test_validation_is_scored_alike_on_one_device_and_eight(tmp_path):
    corpus = make_corpus(val=13)
    plan, state, _ = make(tmp_path / "1", corpus, crf=True, word_shapes=True)
    plan_8, _, _ = make(tmp_path / "8", corpus, crf=True, word_shapes=True, devices=8)
    scores, scores_8 = (p.evaluate(p.devices.replicate(state)) for p in (plan, plan_8))
    assert scores == pytest.approx(scores_8, rel=1e-5) and len(scores) == 10


def test_validation_and_test_sentences_are_scored_by_the_same_programs(tmp_path, caplog):
    corpus, longer = make_corpus(), make_corpus(longest=12)
    corpus = dataclasses.replace(corpus, test=longer.test + longer.val)
    prepared = prepare(make_config(SMALL), corpus, tmp_path)
    val, test = (prepared.placed[name] for name in ("val", "test"))
    assert (len(val.lengths), len(test.lengths)) == (12, 24) and max(val.lengths) <= 16
    assert val.widths == test.widths and max(test.widths) > 16
    parts = (Checkpoints(tmp_path / "checkpoints"), RunWriter(tmp_path))
    variables = training.make_plan(prepared, *parts)[1].variables
    with jax.log_compiles():
        found = [prepared.scorer.emissions(variables, placed) for placed in (test, val)]
    compiled = [line for line in caplog.messages if "XLA compilation of jit(emissions)" in line]
    assert [len(rows) for rows in found[1]] == list(val.lengths)
    shapes = {
        rows["column"].shape
        for placed in (test, val)
        for rows in scoring_batches(placed.lengths, placed.widths, SCORING_TOKENS)
    }
    assert len(compiled) == len(shapes) <= len(test.widths)


def test_sentences_without_a_token_are_trained_on_and_scored(tmp_path):
    corpus = make_corpus()
    empty = tuple(Sentence(f"e{n}", " " * n) for n in range(3))
    corpus = dataclasses.replace(corpus, train=corpus.train + empty, val=empty + corpus.val)
    plan, state, _ = make(tmp_path, corpus, crf=True)
    losses, after = take_steps(plan, state, plan.steps_per_epoch)
    assert np.isfinite(losses).all()
    assert np.isfinite(plan.evaluate(plan.devices.replicate(after))["val/loss"])

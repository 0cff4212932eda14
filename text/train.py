"""Train a term extractor and report on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from common import run_folder
from common.batching import steps_per_epoch
from common.checkpoint import Checkpoints
from common.config import write_json
from common.errors import InputError
from common.loop import Plan, Progress, fit
from common.parallel import local_devices
from common.state import TrainState, count_parameters
from common.step import LossFn, make_train_step
from common.training import make_optimization
from common.writer import RunWriter, say
from text import batches, corpora, crf, decoding, embeddings, packed_vectors, report
from text.config import TextConfig
from text.corpora import Corpus
from text.embeddings import Vectors
from text.extractor import (
    EMBEDDING_SIZE,
    Extractor,
    Placed,
    Scorer,
    Tokenized,
    crf_params,
    init_state,
    make_config_lexicon,
    make_extractor,
    make_tokenizer,
    tokenize_all,
)
from text.lexicon import count_tokens
from text.models import Tagger
from text.tags import SCHEMES, ceiling
from text.vocab import Vocabulary

SPLITS = ("train", "val", "test")


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


def load_corpus(config: TextConfig, log: Callable[[str], None] = say) -> Corpus:
    """The corpus of a run; `log` receives lines for the person."""
    return corpora.load(
        train_file=config.train_file,
        val_file=config.val_file,
        test_file=config.test_file,
        data_dir=config.data_dir,
        val_fraction=config.val_fraction,
        seed=config.seed,
        columns=config.columns,
        merge_repeated=config.merge_repeated,
        log=log,
    )


class Prepared(NamedTuple):
    """A corpus made ready for a model."""

    corpus: Corpus
    splits: dict[str, Tokenized]
    words: Vocabulary  # of all splits, those of training first
    training_words: Vocabulary
    facts: dict[str, dict[str, Any]]  # of each split: sentences, spans, ceiling


def prepare(config: TextConfig, corpus: Corpus) -> Prepared:
    """Tokenise the corpus, and tell how much of its terms the tokens can express."""
    if config.patience and not corpus.val:
        raise InputError("--patience needs validation data: give --val_fraction above 0")
    steps_per_epoch(len(corpus.train), config.batch_size)  # a batch is not larger than the data
    tokenize, scheme = make_tokenizer(config), SCHEMES[config.tags]
    sentences = {name: getattr(corpus, name) for name in SPLITS}
    splits = {name: tokenize_all(part, tokenize, scheme) for name, part in sentences.items()}
    training_words = Vocabulary.build(splits["train"].words)
    if not len(training_words):
        raise InputError(f"{corpus.source}: the training sentences have no token")
    seen = (word for name in ("val", "test") for row in splits[name].words for word in row)
    facts = {
        name: {
            "sentences": len(part),
            "spans": sum(len(sentence.spans) for sentence in part),
            "ceiling": ceiling(part, splits[name].tokens, scheme),
        }
        for name, part in sentences.items()
    }
    return Prepared(corpus, splits, training_words.extend(seen), training_words, facts)


def open_vectors(
    config: TextConfig, prepared: Prepared, workdir: Path
) -> packed_vectors.PackedVectors:
    """The vectors of a run, packed into its folder unless it is resumed and they are there."""
    folder = workdir / "vectors"
    if not (workdir / "config.json").exists() or not (folder / "sources.json").exists():
        sources = embeddings.parse_sources(config.embeddings)
        if "word2vec" in sources:
            path = embeddings.train_word2vec(
                prepared.splits["train"].words,
                workdir / "word2vec.bin",
                size=config.embedding_size or EMBEDDING_SIZE,
                skip_gram=config.word2vec != "cbow",
                seed=config.seed,
            )
            sources[sources.index("word2vec")] = str(path)
        packed_vectors.pack(sources, folder, prepared.words.words, log=say)
    return packed_vectors.open_packed(folder, log=say)


def make_plan(
    config: TextConfig,
    prepared: Prepared,
    extractor: Extractor,
    vectors: Vectors,
    placed: dict[str, Placed],
    scorer: Scorer,
    checkpoints: Checkpoints,
    writer: RunWriter,
) -> tuple[Plan, TrainState]:
    """What `fit` needs, and the state before the first step (not yet on all devices)."""
    devices, train = extractor.devices, placed["train"]
    steps = -(-len(train.lengths) // config.batch_size)
    tx, schedule = make_optimization(config, steps)
    step = make_train_step(
        make_loss_fn(extractor.model), tx, ema_decay=config.ema, axis_name=devices.axis_name
    )
    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    has_val = bool(prepared.splits["val"].sentences)

    def train_step(state: TrainState, data: dict, rows: dict, key: Array) -> tuple:
        return step(state, batches.assemble(data["split"], data["tables"], rows), key)

    def evaluate(state: TrainState) -> dict[str, float]:
        if not has_val:
            return {}
        split = prepared.splits["val"]
        emissions = scorer.emissions(state.variables, placed["val"])
        transitions = crf_params(devices.unreplicate(state.variables), len(extractor.scheme.tags))
        tags = decoding.best_tags(transitions, emissions, extractor.allowed)
        loss = decoding.losses(transitions, emissions, split.tags).mean()
        found = report.score(extractor.scheme, split, tags, "val")
        return {"val/loss": float(loss), **found}

    plan = Plan(
        train_step=devices.compile(train_step, donate_first=True),
        data=train.data,
        epoch_batches=lambda epoch: batches.epoch_batches(
            config.seed, epoch, train.lengths, train.widths, config.batch_size
        ),
        key=devices.replicate(train_key),
        evaluate=evaluate,
        schedule=schedule,
        devices=devices,
        checkpoints=checkpoints,
        writer=writer,
        epochs=config.epochs,
        steps_per_epoch=steps,
        batch_size=len(train.lengths) / steps,
        select="val/exact_f1" if has_val and config.select == "best" else None,
        patience=config.patience,
        checkpoint_seconds=config.checkpoint_minutes * 60,
        unit="sentences",
        shown=("loss", "exact_f1"),
    )
    embedding = extractor.lexicon.first_embedding(
        vectors, np.random.default_rng((config.seed, 0, 3))
    )
    return plan, init_state(config, extractor, tx, (init_key, embedding))


def train(config: TextConfig, workdir: Path, *, resume: bool, command: str) -> dict[str, Any]:
    """Train, select on validation data, score the test split once, write the run folder.

    Args:
        config: a checked configuration.
        workdir: the run folder: new, or with `resume` perhaps that of a stopped run.
        resume: continue from the latest checkpoint, bit for bit.
        command: what was typed, for summary.json.

    Returns:
        The contents of summary.json.
    """
    run_folder.check_run(workdir, config, resume=resume)
    local_devices(config.devices).check_batch(config.batch_size)
    prepared = prepare(config, load_corpus(config))
    lexicon = make_config_lexicon(
        config, prepared.training_words, open_vectors(config, prepared, workdir)
    )
    extractor = make_extractor(config, lexicon)
    vectors = lexicon.look_up(prepared.words)
    tables = extractor.devices.replicate(lexicon.tables(vectors))
    placed = {
        name: Placed(split, prepared.words, tables, extractor.devices)
        for name, split in prepared.splits.items()
    }
    scorer, checkpoints = Scorer(extractor), Checkpoints(workdir / "checkpoints")
    plan, state = make_plan(
        config, prepared, extractor, vectors, placed, scorer, checkpoints, RunWriter(workdir)
    )
    run_folder.open_run(
        workdir, config, lexicon.to_json() | {"fingerprint": prepared.corpus.fingerprint}
    )
    first_command = run_folder.note_command(workdir, command)
    _tell_start(config, prepared, extractor, vectors, state)
    say(f"run folder: {workdir}")
    progress, like = Progress(), extractor.devices.abstract(state)
    if checkpoints.exists():
        state, saved = checkpoints.restore("latest", like)
        progress = Progress(**saved)
        total = config.epochs * plan.steps_per_epoch
        say(f"resuming {workdir} after step {int(state.step)} of {total}")
    _, progress = fit(extractor.devices.replicate(state), plan, progress)
    best, _ = checkpoints.restore("best", like)
    transitions = crf_params(best.variables, len(extractor.scheme.tags))
    emissions = scorer.emissions(extractor.devices.replicate(best.variables), placed["test"])
    test_tags = decoding.best_tags(transitions, emissions, extractor.allowed)
    summary = {
        "task": config.task,
        "config": config.config,
        "model": config.model,
        "cell": config.cell,
        "crf": config.crf,
        "embeddings": config.embeddings,
        "seed": config.seed,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        **_selected_row(plan.writer.history, progress.best_epoch),
        **report.score(extractor.scheme, prepared.splits["test"], test_tags, "test"),
        "params": count_parameters(best.params),
        "sentences_per_second": progress.steps_per_second * plan.batch_size,
        "seconds": progress.seconds,
        "command": first_command,
        "device": extractor.devices.describe(),
        "precision": extractor.precision,
        "corpus": {
            "name": prepared.corpus.name,
            "source": prepared.corpus.source,
            "fingerprint": prepared.corpus.fingerprint,
            **prepared.facts,
        },
        **run_folder.versions(),
    }
    write_json(workdir / "summary.json", summary)
    report.draw(
        workdir, config, plan.writer.history, progress.best_epoch, extractor,
        prepared.splits["test"], test_tags, transitions,
    )  # fmt: skip
    report.tell(workdir, config, summary)
    return summary


def _selected_row(history: list[dict[str, Any]], best_epoch: int) -> dict[str, float]:
    """Training and validation scores of the selected epoch."""
    row = next((row for row in history if row["epoch"] == best_epoch), {})
    return {name: row[name] for name in row if name.startswith(("train/", "val/"))}


def _tell_start(
    config: TextConfig,
    prepared: Prepared,
    extractor: Extractor,
    vectors: Vectors,
    state: TrainState,
) -> None:
    say(f"{prepared.corpus.name} from {prepared.corpus.source}")
    for name, facts in prepared.facts.items():
        say(
            f"  {name:<5} {facts['sentences']:>6,} sentences  {facts['spans']:>6,} terms  "
            f"ceiling of {config.tokenizer} and {config.tags}: F1 {facts['ceiling']:.4f}"
        )
    if extractor.lexicon.vectors.dimension:
        for name in ("train", "test"):
            say(f"  {name:<5} {vectors.coverage(count_tokens(prepared.splits[name].words))}")
    else:
        say(f"  random embeddings of {len(prepared.training_words):,} training words")
    say(
        f"{config.model}, {count_parameters(state.params):,} parameters, {extractor.precision}, "
        f"on {extractor.devices.describe()}"
    )

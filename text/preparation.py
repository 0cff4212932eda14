"""From a corpus to what a run trains and scores with: tokens, words, vectors, model, arrays."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

from common.batching import steps_per_epoch
from common.errors import InputError
from common.parallel import tell_choices
from common.writer import say
from text import corpora, embeddings, packed_vectors, report
from text.config import TextConfig
from text.corpora import Corpus
from text.embeddings import Vectors
from text.extractor import (
    EMBEDDING_SIZE,
    Extractor,
    Placed,
    Scorer,
    Tokenized,
    make_config_lexicon,
    make_extractor,
    make_tokenizer,
    tokenize_all,
)
from text.packed_vectors import PackedVectors
from text.tags import SCHEMES
from text.vocab import Vocabulary

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Prepared:
    """A run before its first step.

    Attributes:
        config: of the run.
        corpus: its sentences.
        splits: their tokens and tags, by SPLITS.
        extractor: the model and what goes with it.
        vectors: of the words of all splits, those of training first.
        placed: the splits on the devices.
        scorer: makes their emissions.
    """

    config: TextConfig
    corpus: Corpus
    splits: dict[str, Tokenized]
    extractor: Extractor
    vectors: Vectors
    placed: dict[str, Placed]
    scorer: Scorer

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Where the corpus is from, hashes, and of each split sentences, spans and ceiling."""
        scheme, corpus = self.extractor.scheme, self.corpus
        return {
            "name": corpus.name,
            "source": corpus.source,
            "fingerprint": corpus.fingerprint,
            "vectors_fingerprint": hashlib.sha256(self.vectors.matrix.tobytes()).hexdigest()[:16],
            **{name: report.facts(scheme, split) for name, split in self.splits.items()},
        }


def load_corpus(config: TextConfig, log: Callable[[str], None] = say) -> Corpus:
    """The corpus of a run; `log` receives lines for the person."""
    return corpora.load(
        train_file=config.train_file,
        val_file=config.val_file,
        test_file=config.test_file,
        data_dir=config.data_dir,
        val_fraction=config.val_fraction,
        train_fraction=config.train_fraction,
        seed=config.seed,
        columns=config.columns,
        merge_repeated=config.merge_repeated,
        log=log,
    )


def prepare(
    config: TextConfig,
    corpus: Corpus,
    workdir: Path,
) -> Prepared:
    """Tokenise a corpus, find its vectors, make the model and put the splits on the devices.

    Args:
        config: a checked configuration.
        corpus: its sentences.
        workdir: the run folder, which gets the word vectors.

    Raises:
        InputError: the corpus does not suit the configuration, or vectors cannot be read.
    """
    if config.patience and not corpus.val:
        raise InputError("--patience needs validation data: give --val_fraction above 0")
    steps_per_epoch(len(corpus.train), config.batch_size)  # a batch is not larger than the data
    tokenize, scheme = make_tokenizer(config), SCHEMES[config.tags]
    splits = {name: tokenize_all(getattr(corpus, name), tokenize, scheme) for name in SPLITS}
    training_words = Vocabulary.build(splits["train"].words)
    if not len(training_words):
        raise InputError(f"{corpus.source}: the training sentences have no token")
    words = training_words.extend(chain(*splits["val"].words, *splits["test"].words))
    packed = open_vectors(config, splits["train"].words, words, workdir)
    extractor = make_extractor(config, make_config_lexicon(config, training_words, packed))
    vectors = extractor.lexicon.look_up(words)
    if packed.dimension and not vectors.found[1 : 1 + len(training_words)].any():
        raise InputError(
            f"--embeddings={config.embeddings}: no word of the training sentences has a vector "
            "there: take vectors of their language, or --embeddings=random"
        )
    tables = extractor.devices.replicate(extractor.lexicon.tables(vectors))
    place = partial(Placed, vocabulary=words, tables=tables, devices=extractor.devices)
    placed = {
        "train": place(splits["train"], buckets=extractor.training_buckets),
        "val": place(splits["val"], beside=splits["test"]),
        "test": place(splits["test"], beside=splits["val"]),
    }
    return Prepared(config, corpus, splits, extractor, vectors, placed, Scorer(extractor))


def open_vectors(
    config: TextConfig, train: list[list[str]], words: Vocabulary, workdir: Path
) -> PackedVectors:
    """The vectors of a run, packed into its folder unless it is resumed and they are there.

    Args:
        config: of the run.
        train: the tokens of the training sentences, for word2vec.
        words: of all splits.
        workdir: the run folder.
    """
    folder = workdir / "vectors"
    if not (workdir / "config.json").exists() or not (folder / "sources.json").exists():
        sources = embeddings.parse_sources(config.embeddings)
        if "word2vec" in sources:
            path = embeddings.train_word2vec(
                train,
                workdir / "word2vec.bin",
                size=config.embedding_size or EMBEDDING_SIZE,
                skip_gram=config.word2vec != "cbow",
                seed=config.seed,
            )
            sources[sources.index("word2vec")] = str(path)
        packed_vectors.pack(sources, folder, words.words, log=say)
    return packed_vectors.open_packed(folder, log=say)


def tell_start(prepared: Prepared, parameters: int) -> None:
    """Print what is trained on, and what its tokens and vectors can give."""
    config, extractor = prepared.config, prepared.extractor
    say(f"{prepared.corpus.name} from {prepared.corpus.source}")
    for name in SPLITS:
        report.tell_facts(name, prepared.facts[name], config)
    if extractor.lexicon.vectors.dimension:
        for name in ("train", "test"):
            counts = Counter(chain.from_iterable(prepared.splits[name].words))
            say(f"  {name:<5} {prepared.vectors.coverage(counts)}")
    else:
        say(f"  random embeddings of {len(extractor.lexicon.training_words):,} training words")
    say(f"{config.model}, {parameters:,} parameters")
    onednn = extractor.pays_with_onednn
    tell_choices(extractor.devices, extractor.precision, onednn=onednn)

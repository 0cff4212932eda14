"""A term extractor and what goes with it: its first state, its emissions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from common.host import onednn_is_fast
from common.parallel import Devices, local_devices
from common.state import TrainState, create_state
from common.training import choose_dtype
from text import batches, decoding, tokenizers
from text.config import TextConfig
from text.crf import CRFParams
from text.lexicon import Lexicon, make_lexicon
from text.models import Tagger
from text.packed_vectors import PackedVectors
from text.sentences import Sentence, Span
from text.tags import SCHEMES, TagScheme
from text.tokenizers import Tokenizer
from text.vocab import Characters, Vocabulary

EMBEDDING_SIZE = 100  # of random embeddings and of word2vec
WORD_DROPOUT = 0.05  # of trained embeddings
WIDE_UNITS = 256  # of a recurrent layer


@dataclass(frozen=True)
class Extractor:
    """A tagger bound to its tokens, tags and words."""

    model: Tagger
    scheme: TagScheme
    tokenize: Tokenizer
    lexicon: Lexicon
    devices: Devices
    allowed: CRFParams | None  # legal tag sequences, None if all are
    decode: str  # one of decoding.DECODINGS

    @property
    def precision(self) -> str:
        return jnp.dtype(self.model.dtype).name

    @property
    def pays_with_onednn(self) -> bool:
        """Whether its programs call oneDNN on CPUs, which are compiled anew at every start.

        Narrow recurrent layers in float32 are as fast without: an epoch of report B's BiLSTM on
        laptop14 takes a core of a Xeon 0.28 s either way, of the default tagger 3.7 s with and 3.5
        without; and a second start spares 2 s.
        """
        narrow = self.model.encoder == "birnn" and not self._wide
        return onednn_is_fast(self.precision) and (self.precision == "bfloat16" or not narrow)

    @property
    def training_buckets(self) -> int:
        """How many widths its batches are padded to in training."""
        return batches.WIDE_BUCKETS if self._wide else batches.BUCKETS

    @property
    def _wide(self) -> bool:
        return _is_wide(self.model.encoder, self.model.hidden_size)

    def choose_tags(
        self, transitions: CRFParams, emissions: Sequence[np.ndarray], widths: Sequence[int] = ()
    ) -> list[np.ndarray]:
        """The tags, int32 [T], of every sentence; args as of `decoding.best_tags`."""
        if self.decode == "path":
            return decoding.best_tags(transitions, emissions, self.allowed, widths)
        found = decoding.likely_terms(transitions, emissions, self.scheme, widths)
        pairs = zip(emissions, found, strict=True)
        return [self.scheme.encode_ranges(len(scores), list(terms)) for scores, terms in pairs]

    def choose_terms(
        self, transitions: CRFParams, emissions: Sequence[np.ndarray]
    ) -> list[decoding.Chances]:
        """The terms of the tags that `choose_tags` chooses, with their probabilities."""
        if self.decode == "path":
            tags = decoding.best_tags(transitions, emissions, self.allowed)
            ranges = [self.scheme.decode_ranges(row) for row in tags]
            return decoding.term_probabilities(transitions, emissions, ranges, self.scheme)
        return decoding.likely_terms(transitions, emissions, self.scheme)


def make_tokenizer(config: TextConfig) -> Tokenizer:
    """The tokenizer of a configuration, with its stop words and its longest sentence."""
    split = tokenizers.TOKENIZERS[config.tokenizer]
    if not config.remove_stop_words and not config.max_length:
        return split

    def tokenize(text: str) -> list[Span]:
        tokens = split(text)
        if config.remove_stop_words:
            tokens = tokenizers.remove_stop_words(tokens, text)
        return tokens[: config.max_length] if config.max_length else tokens

    return tokenize


def make_config_lexicon(
    config: TextConfig,
    training_words: Vocabulary,
    vectors: PackedVectors,
    characters: Characters | None = None,
) -> Lexicon:
    """The lexicon that `config` describes."""
    return make_lexicon(
        training_words,
        vectors,
        trained=bool(config.train_embeddings),
        random_size=config.embedding_size or EMBEDDING_SIZE,
        reads_chars=config.chars != "none",
        reads_shapes=config.word_shapes,
        characters=characters,
    )


def make_extractor(config: TextConfig, lexicon: Lexicon) -> Extractor:
    """The extractor that `config` describes. Raises InputError for what cannot be."""
    devices = local_devices(config.devices)
    scheme = SCHEMES[config.tags]
    model = Tagger(
        num_tags=len(scheme.tags),
        encoder=config.model,
        cell=config.cell or "lstm",
        hidden_size=config.hidden_sizes,
        bidirectional=config.bidirectional is not False,
        merge=config.merge or "concat",
        learnt_words=lexicon.learnt_words,
        embedding_size=lexicon.size,
        embedding_dropout=config.embedding_dropout,
        recurrent_dropout=config.state_dropout,
        output_dropout=config.dropout or 0.0,
        word_dropout=_word_dropout(config, lexicon),
        char_encoder=None if config.chars == "none" else config.chars,
        num_chars=len(lexicon.characters),
        shape_features=config.word_shapes,
        crf=config.crf,
        dtype=choose_dtype(
            config, devices, half_on_cpu=_is_wide(config.model, config.hidden_sizes)
        ),
        axis_name=devices.axis_name,
    )
    allowed = scheme.allowed() if config.constrained else None
    tokenize = make_tokenizer(config)
    return Extractor(model, scheme, tokenize, lexicon, devices, allowed, config.decode)


def _is_wide(encoder: str, hidden_sizes: Sequence[int]) -> bool:
    """Whether bfloat16 pays at this model on a CPU that has it.

    A training epoch of laptop14, batch 64, with one layer of 512 units takes a core of a Xeon with
    AMX 6.4 s in bfloat16 and 12.4 in float32; with 128 units 1.2 and 1.5. Two cores of an EPYC
    with AVX-512's bfloat16 train on 930 and 637 sentences a second with 512 units, on 2,090 and
    1,580 with 256; with 128 units both are alike, 3,200. (Measured with loops over all padding.)
    """
    return encoder == "birnn" and max(hidden_sizes) >= WIDE_UNITS


def _word_dropout(config: TextConfig, lexicon: Lexicon) -> float:
    """The rate; by default what teaches trained embeddings to meet an unknown word."""
    if config.word_dropout is not None:
        return config.word_dropout
    return WORD_DROPOUT if lexicon.trained else 0.0


@dataclass(frozen=True)
class Tokenized:
    """Sentences and their tokens.

    Attributes:
        sentences: N of them.
        tokens: the offsets of each one's tokens.
        tags: the gold tags of each one's tokens.
    """

    sentences: Sequence[Sentence]
    tokens: list[list[Span]]
    tags: list[list[int]]

    @property
    def words(self) -> list[list[str]]:
        """The tokens as they are written."""
        return [
            [sentence.text[start:end] for start, end in tokens]
            for sentence, tokens in zip(self.sentences, self.tokens, strict=True)
        ]


def tokenize_all(
    sentences: Sequence[Sentence], tokenize: Tokenizer, scheme: TagScheme
) -> Tokenized:
    """Tokens and gold tags of sentences."""
    tokens = [tokenize(sentence.text) for sentence in sentences]
    pairs = zip(tokens, sentences, strict=True)
    tags = [scheme.encode(row, sentence.spans) for row, sentence in pairs]
    return Tokenized(sentences, tokens, tags)


class Placed:
    """A split on the devices, ready to be scored or trained on."""

    def __init__(
        self,
        split: Tokenized,
        vocabulary: Vocabulary,
        tables: Any,
        devices: Devices,
        beside: Tokenized | None = None,
        buckets: int = batches.BUCKETS,
    ) -> None:
        """Put the arrays on the devices.

        Args:
            split: the sentences.
            vocabulary: with all their words.
            tables: those of the vocabulary, on the devices already.
            devices: of the run.
            beside: another split, which is to have the same widths and so the same programs; both
                are then padded as their sentences together ask for.
            buckets: at most so many widths.
        """
        rows: list[Any] = [vocabulary.rows(words) for words in split.words]
        self.lengths = np.array([len(row) for row in rows], np.int32)
        self.decoding_widths = batches.bucket_widths(self.lengths, decoding.WIDTHS)
        others = np.array(
            [len(row) for row in beside.tokens] if beside is not None else [], np.int32
        )
        self.widths = batches.bucket_widths(np.concatenate([self.lengths, others]), buckets)
        # Chunks of text share compiled programs if their number of sentences is a power of two.
        size = max(len(rows), len(others))
        missing = (1 << max(size - 1, 0).bit_length()) - len(rows)
        rows, tags = [*rows, *[[]] * missing], [*split.tags, *[[]] * missing]
        encoded = batches.encode(rows, tags, max(self.widths))
        self.data = {"split": devices.replicate(encoded._asdict()), "tables": tables}


class Scorer:
    """Emissions of a split, for any state; compiled once for each width."""

    def __init__(self, extractor: Extractor):
        self._devices = extractor.devices
        model = extractor.model

        def emissions(variables: dict, data: dict, rows: dict) -> Array:
            batch = batches.assemble(data["split"], data["tables"], rows)
            return cast(Array, model.apply(variables, batch, train=False)[0])

        self._emissions = self._devices.compile(emissions, onednn=extractor.pays_with_onednn)

    def emissions(self, variables: Any, placed: Placed) -> list[np.ndarray]:
        """Emissions float32 [T, K] of every sentence, without padding.

        Args:
            variables: on the devices.
            placed: the split.
        """
        found: list[np.ndarray] = [np.empty(0)] * len(placed.lengths)
        for rows in batches.scoring_batches(
            placed.lengths, placed.widths, batches.SCORING_TOKENS, self._devices.count
        ):
            made = self._emissions(variables, placed.data, self._devices.shard(rows))
            made = self._devices.unshard(made)
            for place, index in enumerate(rows["index"]):
                if rows["weight"][place]:
                    found[index] = made[place, : placed.lengths[index]]
        return found


def crf_params(variables: Any, num_tags: int) -> CRFParams:
    """The transitions of a trained tagger, float32 on the host; zero for one without a CRF.

    Args:
        variables: one copy, not one per device.
    """
    learnt = variables["params"].get("crf")
    if learnt is None:
        return CRFParams(*(np.zeros(s, np.float32) for s in ((num_tags,) * 2, num_tags, num_tags)))
    return CRFParams(*(np.asarray(learnt[name]) for name in CRFParams._fields))


def init_state(
    config: TextConfig,
    extractor: Extractor,
    tx: optax.GradientTransformation,
    start: tuple[Array, np.ndarray] | None = None,
) -> TrainState:
    """A new state from a key and the first learnt embedding; without, only shapes and types."""
    lexicon = extractor.lexicon
    batch = smallest_batch(lexicon)

    def init(key: Array, embedding: Array) -> TrainState:
        variables = dict(extractor.model.init(key, batch, train=False))
        if lexicon.trained:
            variables["params"] = {**variables["params"], "embedding": embedding}
        return create_state(variables, tx, ema=config.ema > 0)

    if start is None:
        empty = jnp.zeros((lexicon.learnt_words, lexicon.size))
        return jax.eval_shape(init, jax.random.key(0), empty)
    return jax.jit(init)(*start)


def smallest_batch(lexicon: Lexicon) -> dict[str, Any]:
    """A batch of one sentence of one token, for shapes alone."""
    tokens, lengths = np.zeros((1, 1), np.int32), np.zeros(1, np.int32)
    tables = lexicon.tables(lexicon.look_up(Vocabulary(())))
    return tables | {"tokens": tokens, "lengths": lengths}

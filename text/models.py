"""Taggers in flax linen: words to emissions, by recurrent layers or by convolutions.

    model.apply(variables, batch, train=...) -> (emissions float32 [B, T, K], CRFParams)

What a tagger reads of a batch; V words of W characters, sentences of T tokens:

    tokens   int32   [B, T]  row of the word tables below, 0 is padding
    lengths  int32   [B]
    vectors  float32 [V, D]  fixed vectors, without a gradient
    learnt   int32   [V]     row of the learnt embeddings, or -1: the word has fixed `vectors`;
                             read with `learnt_words` only
    chars    int32   [V, W]  characters, 0 is padding; read with `char_encoder` only
    shapes   float32 [V, F]  how a word is written; read with `shape_features` only

No loss, softmax or argmax lives here. Dropout draws from the rng stream `dropout`.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from common.config import check_choice
from common.layers import Dropout
from text.crf import CRFParams
from text.recurrence import run_directions
from text.rnn import CELLS, RNN, Direction, real_steps

# Rows of mean square 1/D, so that an embedding's length does not depend on its size.
EMBEDDING_INIT = nn.initializers.variance_scaling(1.0, "fan_out", "uniform")


class RecurrentStack(nn.Module):
    """Recurrent layers, one for each entry of `hidden_size`, dropout after each of them."""

    cell: str
    hidden_size: tuple[int, ...]
    bidirectional: bool
    merge: str
    recurrent_dropout: float
    output_dropout: float
    dtype: Any
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Array, lengths: Array, train: bool) -> Array:
        for i, features in enumerate(self.hidden_size, 1):
            x = RNN(
                self.cell,
                features,
                self.bidirectional,
                self.merge,
                self.recurrent_dropout,
                self.dtype,
                self.axis_name,
                name=f"layer{i}",
            )(x, lengths, train)
            x = Dropout(self.output_dropout, self.axis_name, name=f"dropout{i}")(x, train)
        return x


class DECNN(nn.Module):
    """The convolutions of DE-CNN (Xu et al. 2018, arXiv 1805.04601), dropout between them.

    128 filters of width 5 beside 128 of width 3, then three layers of 256 filters of width 5.
    """

    output_dropout: float
    dtype: Any
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Array, lengths: Array, train: bool) -> Array:
        real = real_steps(lengths, x.shape[1])
        for i, widths in enumerate(((5, 3), (5,), (5,), (5,)), 1):
            if i > 1:
                x = Dropout(self.output_dropout, self.axis_name, name=f"dropout{i - 1}")(x, train)
            # A layer's bias makes padding nonzero, and the next one would see it.
            x = jnp.where(real, x, 0)
            filters = 256 // len(widths)
            parts = [
                nn.Conv(filters, (w,), dtype=self.dtype, name=f"layer{i}_width{w}")(x)
                for w in widths
            ]
            x = nn.relu(jnp.concatenate(parts, axis=-1))
        return x


def embed_words(table: Array | None, batch: dict[str, Array], kept: Array) -> Array:
    """A word's learnt or else its fixed embedding: float32 [B, T, D].

    Args:
        table: float32 [R, D], the learnt embeddings, or None: the unknown word is 0. Nothing before
            the encoder is learnt then, unless words have characters, and no gradient of its input
            is computed, which takes 5 to 30 % of an epoch.
        batch: see the top of the file.
        kept: bool [B, T], false where the unknown word stands in for the token.
    """
    fixed = jax.lax.stop_gradient(batch["vectors"])[batch["tokens"]]
    if table is None:
        return jnp.where(kept[:, :, None], fixed, 0)
    row = jnp.where(kept, batch["learnt"][batch["tokens"]], 0)
    return jnp.where((row >= 0)[:, :, None], table[jnp.maximum(row, 0)], fixed)


class CharCNN(nn.Module):
    """Words from their characters: width-3 filters, the maximum over the word.

    Ma and Hovy 2016, arXiv 1603.01354.
    """

    num_chars: int
    char_size: int
    char_features: int
    dtype: Any

    @nn.compact
    def __call__(self, chars: Array) -> Array:
        """Float [N, `char_features`] for chars int32 [N, W]; 0 for a word of no character."""
        x, real = embed_chars(self, chars)
        x = nn.Conv(self.char_features, (3,), dtype=self.dtype, name="conv")(x)
        best = jnp.where(real, x, -jnp.inf).max(axis=1)
        return jnp.where(real.any(axis=1), best, 0)


class CharLSTM(nn.Module):
    """Words from their characters: the last states of an LSTM in each direction.

    Lample et al. 2016, arXiv 1603.01360.
    """

    num_chars: int
    char_size: int
    char_features: int
    dtype: Any

    @nn.compact
    def __call__(self, chars: Array) -> Array:
        """Float [N, `char_features`] for chars int32 [N, W]; 0 for a word of no character."""
        x, real = embed_chars(self, chars)
        lengths = real.sum(axis=(1, 2))
        direction = partial(Direction, "lstm", self.char_features // 2, dtype=self.dtype)
        operands = [direction(name=name)(x, lengths, False) for name in ("forward", "backward")]
        forward, backward = run_directions(CELLS["lstm"], operands, lengths)  # [W, N, H]
        last = forward[jnp.maximum(lengths - 1, 0), jnp.arange(len(lengths))]
        return jnp.concatenate([last, backward[0]], axis=-1).astype(self.dtype)


def embed_chars(encoder: CharCNN | CharLSTM, chars: Array) -> tuple[Array, Array]:
    """Embeddings [N, W, `char_size`] of characters, 0 at padding, and where they are real."""
    shape = (encoder.num_chars, encoder.char_size)
    table = encoder.param("embedding", EMBEDDING_INIT, shape)
    real = (chars > 0)[:, :, None]
    return jnp.where(real, table[chars], 0), real


class Transitions(nn.Module):
    """The learnt parameters of a CRF over K tags."""

    num_tags: int

    @nn.compact
    def __call__(self) -> CRFParams:
        K = self.num_tags
        init = nn.initializers.uniform(0.1)
        shapes = CRFParams(transitions=(K, K), start=(K,), end=(K,))
        return CRFParams(**{n: self.param(n, init, s) for n, s in shapes._asdict().items()})


ENCODERS: dict[str, Callable[..., nn.Module]] = {"birnn": RecurrentStack, "decnn": DECNN}
CHAR_ENCODERS: dict[str, Callable[..., nn.Module]] = {"cnn": CharCNN, "lstm": CharLSTM}


class Tagger(nn.Module):
    """Emissions of K tags for every token, and the transitions of a CRF.

    Attributes:
        num_tags: K.
        encoder: a key of `ENCODERS`.
        cell, hidden_size, bidirectional, merge: of "birnn"; see `RNN`, one layer for
            each entry of `hidden_size`.
        learnt_words: rows of the learnt embeddings, of which row 0 is the unknown word; 0 is
            none, and the unknown word's embedding is 0.
        embedding_size: D.
        embedding_dropout: of all that enters the encoder.
        recurrent_dropout: of "birnn"; see `RNN`.
        output_dropout: of the encoder's layers.
        word_dropout: chance that a token's embedding is the unknown word's, in training.
        char_encoder: a key of `CHAR_ENCODERS`, or None.
        num_chars, char_size, char_features: characters, size of an embedded one, features
            of a word (an even number for "lstm").
        shape_features: whether `shapes` are read.
        crf: whether transitions are learnt; without, they are 0 and no parameters.
        dtype: of the computation. Parameters and emissions are float32.
        axis_name: the device axis under `pmap`, None on one device.
    """

    num_tags: int
    encoder: str = "birnn"
    cell: str = "lstm"
    hidden_size: tuple[int, ...] = (128,)
    bidirectional: bool = True
    merge: str = "concat"
    learnt_words: int = 0
    embedding_size: int = 100
    embedding_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    output_dropout: float = 0.0
    word_dropout: float = 0.0
    char_encoder: str | None = None
    num_chars: int = 2
    char_size: int = 25
    char_features: int = 50
    shape_features: bool = False
    crf: bool = False
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, batch: dict[str, Array], train: bool = False) -> tuple[Array, CRFParams]:
        """Emissions float32 [B, T, K], of no meaning at padding, and the transitions.

        Raises InputError if an encoder, a cell or a merge does not exist.
        """
        x = self.represent(batch, train)
        x = Dropout(self.embedding_dropout, self.axis_name, name="embedding_dropout")(x, train)
        encoder = self.part("encoder", ENCODERS[check_choice("--model", self.encoder, ENCODERS)])
        x = encoder(x, batch["lengths"], train)
        emissions = nn.Dense(self.num_tags, dtype=self.dtype, name="head")(x)
        K = self.num_tags
        if self.crf:
            return emissions.astype(jnp.float32), Transitions(K, name="crf")()
        nothing = CRFParams(jnp.zeros((K, K)), start=jnp.zeros(K), end=jnp.zeros(K))
        return emissions.astype(jnp.float32), nothing

    def part(self, name: str, constructor: Callable[..., nn.Module]) -> Any:
        """A module made with those fields of the tagger that it has too."""
        fields: Any = constructor
        names = {field.name for field in dataclasses.fields(fields)} - {"parent", "name"}
        return constructor(name=name, **{n: getattr(self, n) for n in names})

    def represent(self, batch: dict[str, Array], train: bool) -> Array:
        """All that is known of each token: `dtype` [B, T, features]."""
        tokens = batch["tokens"]
        shape = (self.learnt_words, self.embedding_size)
        table = self.param("embedding", EMBEDDING_INIT, shape) if self.learnt_words else None
        word_dropout = Dropout(self.word_dropout, self.axis_name, name="word_dropout")
        kept = word_dropout(jnp.ones(tokens.shape), train) > 0
        features = [embed_words(table, batch, kept)]
        if self.char_encoder is not None:
            choice = check_choice("--chars", self.char_encoder, CHAR_ENCODERS)
            chars = batch["chars"][tokens]  # [B, T, W]
            words = self.part("chars", CHAR_ENCODERS[choice])(chars.reshape(-1, chars.shape[-1]))
            features.append(words.reshape(*tokens.shape, -1))
        if self.shape_features:
            features.append(batch["shapes"][tokens])
        return jnp.concatenate([part.astype(self.dtype) for part in features], axis=-1)

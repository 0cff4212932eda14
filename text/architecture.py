"""`--mode=describe`: the layer table of a tagger and its structure as a picture."""

import numpy as np

from common.describe import describe
from common.structure import show_structure
from text.config import TextConfig
from text.embeddings import parse_sources, source_dimension
from text.extractor import EMBEDDING_SIZE, make_config_lexicon, make_extractor, smallest_batch
from text.packed_vectors import PackedVectors
from text.vocab import Vocabulary

TOKENS = 20  # of the sentence whose shapes and FLOPs are shown


def show(config: TextConfig, workdir: str | None) -> None:
    """Print the table; write structure.txt and structure.png to `workdir` [runs/describe-MODEL].

    No corpus and no vector is read: trained embeddings have one row, that of the unknown word.
    """
    dimension = sum(
        (config.embedding_size or EMBEDDING_SIZE)
        if source == "word2vec"
        else source_dimension(source)
        for source in parse_sources(config.embeddings)
    )
    lexicon = make_config_lexicon(config, Vocabulary(()), PackedVectors(dimension, ()))
    model = make_extractor(config, lexicon).model
    batch = smallest_batch(lexicon) | {"tokens": np.zeros((1, TOKENS), np.int32)}
    rows = describe(model, batch, train=False)
    show_structure(rows, config.model, f"a sentence of {TOKENS} tokens", workdir)

"""What an extractor decides: which terms, whether its programs call oneDNN, how much is padded."""

import jax.numpy as jnp
import numpy as np
import pytest

from common import host
from common.parallel import local_devices
from text import decoding
from text.crf import CRFParams
from text.decoding import DECODINGS
from text.extractor import Extractor, Placed, Tokenized
from text.models import Tagger
from text.sentences import Sentence, Span
from text.tags import SCHEMES
from text.tokenizers import TOKENIZERS
from text.vocab import Vocabulary


def make(scheme="bio", decode="terms", allowed=None, **fields):
    tags = SCHEMES[scheme]
    model = Tagger(len(tags.tags), **({"hidden_size": (8,)} | fields))
    return Extractor(model, tags, TOKENIZERS["words"], None, local_devices(1), allowed, decode)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("decode", DECODINGS)
@pytest.mark.parametrize("constrained", [True, False])
def test_terms_with_probabilities_are_those_of_the_tags(scheme, decode, constrained):
    tags = SCHEMES[scheme]
    extractor = make(scheme, decode, tags.allowed() if constrained else None)
    rng, K = np.random.default_rng(3), len(tags.tags)
    transitions = CRFParams(*(rng.normal(size=s).astype("f4") for s in ((K, K), K, K)))
    emissions = [rng.normal(size=(n, K), scale=3).astype("f4") for n in (4, 0, 9, 1)]
    chosen = extractor.choose_tags(transitions, emissions)
    for row, scores in zip(chosen, emissions, strict=True):
        assert row.dtype == np.int32 and len(row) == len(scores)
    found = extractor.choose_terms(transitions, emissions)
    ranges = [tags.decode_ranges(row) for row in chosen]
    assert [list(terms) for terms in found] == ranges and any(ranges)
    expected = decoding.term_probabilities(transitions, emissions, ranges, tags)
    for terms, chances in zip(found, expected, strict=True):
        assert terms == pytest.approx(chances, rel=1e-5)


@pytest.mark.parametrize(
    "dtype, hidden, encoder, with_units, without",
    [
        ("float32", 128, "birnn", False, False),
        ("float32", 512, "birnn", True, True),
        ("float32", 128, "decnn", True, True),
        ("bfloat16", 128, "birnn", True, False),
        ("bfloat16", 512, "birnn", True, False),
    ],
)
def test_wide_taggers_call_onednn_where_it_is_fast(
    monkeypatch, dtype, hidden, encoder, with_units, without
):
    extractor = make(dtype=jnp.dtype(dtype), hidden_size=(hidden,), encoder=encoder)
    for units, expected in ((True, with_units), (False, without)):
        monkeypatch.setattr(host, "has_bfloat16", lambda units=units: units)
        assert extractor.pays_with_onednn == expected


def test_wide_taggers_are_trained_with_less_padding():
    """More shapes to compile; sentences of 1 to 90 tokens have enough usual widths."""
    tokens = [[Span(i, i + 1) for i in range(n)] for n in range(1, 91)]
    sentences = [Sentence(str(n), "a" * n) for n in range(1, 91)]
    split = Tokenized(sentences, tokens, [[0] * len(row) for row in tokens])
    vocabulary = Vocabulary.build(split.words)
    found = []
    for hidden in (128, 512):
        extractor = make(hidden_size=(hidden,))
        buckets = extractor.training_buckets
        found.append(len(Placed(split, vocabulary, {}, extractor.devices, buckets=buckets).widths))
    assert found == [4, 6]

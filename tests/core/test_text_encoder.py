from __future__ import annotations

import numpy as np
import pytest

from muvera_core import FDEConfig, MuveraIndex, TextEncoder, maxsim, score_texts
from muvera_core.encoders import BundledEncoder, PrecomputedEmbeddings
from muvera_core.errors import DimensionMismatchError, InvalidInputError

TEXTS = ["Owls hunt at night.", "Ants live in colonies.", "Rye bread keeps long."]
QUERY = "Which bird is active after dark?"


def test_vectors_are_those_of_stage_one(encoder: BundledEncoder) -> None:
    text_encoder = TextEncoder(encoder, batch_size=2)
    vectors = text_encoder.encode_documents(TEXTS)
    assert vectors.shape == (3, text_encoder.output_dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    with MuveraIndex.create(None, encoder) as index:
        index.add(TEXTS)
        stored = index._collection.stage_one.candidates.vectors(index._collection.store.snapshot.keys)
    # The index encodes its stored tokens, which are rounded to 8 bits: a few move to the other side of a hyperplane.
    assert (np.sum(stored * vectors, axis=1) > 0.95).all()


def test_every_metric_gives_the_same_ranking(encoder: BundledEncoder) -> None:
    text_encoder = TextEncoder(encoder)
    documents, query = text_encoder.encode_documents(TEXTS), text_encoder.encode_queries([QUERY])[0]
    assert np.argmax(documents @ query) == 0
    np.testing.assert_array_equal(
        np.argsort(-(documents @ query)), np.argsort(np.linalg.norm(documents - query, axis=1))
    )


def test_plain_vectors_are_the_encodings(encoder: BundledEncoder) -> None:
    plain, unit = TextEncoder(encoder, normalize=False), TextEncoder(encoder)
    lengths = np.linalg.norm(plain.encode_documents(TEXTS), axis=1, keepdims=True)
    assert (lengths > 1.5).all()
    np.testing.assert_allclose(plain.encode_documents(TEXTS) / lengths, unit.encode_documents(TEXTS), atol=1e-6)
    assert plain.fingerprint != unit.fingerprint
    assert unit.encode_documents([]).shape == (0, unit.output_dimension)


def test_settings_are_checked() -> None:
    encoder = PrecomputedEmbeddings(64, "any")
    assert TextEncoder(encoder).fde.dimension == 64
    with pytest.raises(DimensionMismatchError, match=r"FDEConfig\.for_dimension\(64\)"):
        TextEncoder(encoder, FDEConfig())
    with pytest.raises(InvalidInputError, match="center"):
        TextEncoder(encoder, FDEConfig(dimension=64, center=True))
    with pytest.raises(InvalidInputError, match="batch_size"):
        TextEncoder(encoder, batch_size=0)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_texts_are_scored_by_exact_maxsim(encoder: BundledEncoder, batch_size: int) -> None:
    scores, normalized = score_texts(encoder, QUERY, [*TEXTS, " "], batch_size=batch_size)
    query = encoder.encode_queries([QUERY])[0]
    np.testing.assert_allclose(scores, [*maxsim(query, encoder.encode_documents(TEXTS)), 0], rtol=1e-5)
    np.testing.assert_allclose(normalized, scores / len(query), rtol=1e-6)
    assert scores.argmax() == 0


def test_no_texts_and_an_empty_query(encoder: BundledEncoder) -> None:
    scores, normalized = score_texts(encoder, QUERY, [])
    assert scores.shape == normalized.shape == (0,)
    with pytest.raises(InvalidInputError, match="query is empty"):
        score_texts(encoder, " ", TEXTS)

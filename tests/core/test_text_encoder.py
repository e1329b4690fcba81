from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from muvera_core import FDEConfig, MuveraIndex, TextEncoder, maxsim, score_texts
from muvera_core.encoders import BundledEncoder, PrecomputedEmbeddings
from muvera_core.errors import DimensionMismatchError, InvalidInputError

TEXTS = ["Owls hunt at night.", "Ants live in colonies.", "Rye bread keeps long."]
QUERY = "Which bird is active after dark?"


class Shouting(TextEncoder):
    """Gives texts in capitals the vectors of small letters, as its encoder does anyway."""


def test_vectors_are_those_of_stage_one(encoder: BundledEncoder) -> None:
    text_encoder = TextEncoder(encoder, batch_size=2)
    vectors = text_encoder.encode_documents(TEXTS)
    assert vectors.shape == (3, text_encoder.output_dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    with MuveraIndex.create(None, encoder) as index:
        index.add(TEXTS)
        stored = index.engine.collection.stage_one.candidates.vectors(index.engine.collection.store.snapshot.keys)
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


def test_no_texts_have_no_scores(encoder: BundledEncoder) -> None:
    scores, normalized = score_texts(encoder, QUERY, [])
    assert scores.shape == normalized.shape == (0,)


@pytest.mark.parametrize("query", ["", " \n", "\u200b\x00"])
def test_a_query_without_visible_text_scores_every_text_0(encoder: BundledEncoder, query: str) -> None:
    for scores in score_texts(encoder, query, TEXTS):
        assert scores.tolist() == [0, 0, 0]


def test_texts_without_visible_characters_score_0(encoder: BundledEncoder) -> None:
    scores, normalized = score_texts(encoder, QUERY, [TEXTS[0], "\u200b\ufeff", "\x00", "\u2003"])
    assert scores[0] > 1
    assert scores[1:].tolist() == normalized[1:].tolist() == [0, 0, 0]


def test_halves_of_surrogate_pairs_are_replaced(encoder: BundledEncoder) -> None:
    broken, mended = "Owls \ud83e hunt at night.", "Owls \ufffd hunt at night."
    np.testing.assert_array_equal(
        score_texts(encoder, f"{QUERY}\udd89", [broken]), score_texts(encoder, f"{QUERY}\ufffd", [mended])
    )
    text_encoder = TextEncoder(encoder)
    for encode in (text_encoder.encode_documents, text_encoder.encode_queries):
        np.testing.assert_array_equal(encode([broken]), encode([mended]))


def test_blank_texts_have_vectors(encoder: BundledEncoder) -> None:
    vectors = TextEncoder(encoder).encode_documents(["", " ", "\u200b"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_what_is_no_text_is_refused(encoder: BundledEncoder) -> None:
    for texts in ("one text", ["fine", None]):
        with pytest.raises(InvalidInputError, match=r"texts(\[1\])? must be a"):
            score_texts(encoder, QUERY, texts)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match=r"texts(\[1\])? must be a"):
            TextEncoder(encoder).encode_documents(texts)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="query must be a string"):
        score_texts(encoder, None, TEXTS)  # type: ignore[arg-type]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])  # noqa: S301
def test_a_copy_gives_the_same_vectors(encoder: BundledEncoder, copied: Callable[[TextEncoder], TextEncoder]) -> None:
    class_of_its_own = Shouting(encoder, FDEConfig(num_repetitions=3), normalize=False, batch_size=2)
    again = copied(class_of_its_own)
    assert type(again) is Shouting
    assert (again.fingerprint, again.batch_size) == (class_of_its_own.fingerprint, 2)
    assert again.settings == class_of_its_own.settings
    assert json.loads(json.dumps(again.settings)) == again.settings
    np.testing.assert_array_equal(again.encode_documents(TEXTS), class_of_its_own.encode_documents(TEXTS))


def test_an_encoder_of_precomputed_embeddings_can_be_copied() -> None:
    made = PrecomputedEmbeddings(64, "model-a")
    again = pickle.loads(pickle.dumps(made))  # noqa: S301
    assert (again.fingerprint, again.settings) == (made.fingerprint, {"dimension": 64, "model": "model-a"})

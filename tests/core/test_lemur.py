"""The learned encoder, on tokens of real passages if it matters what it learns, else on artificial ones."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera_core import (
    FDEConfig,
    FixedDimensionalEncoder,
    LearnedSetEncoder,
    LearnedSetEncoderConfig,
    SetEncoder,
    TokenEmbeddings,
    maxsim,
)
from muvera_core.errors import DimensionMismatchError, EncoderError, InvalidInputError
from muvera_core.set_encoders import LearnedMatrices
from muvera_core.set_encoders.lemur import encoder as encoder_module
from muvera_core.set_encoders.lemur import fit
from muvera_core.set_encoders.lemur.settings import MAX_SEED, MAX_SIZE

SMALL = LearnedSetEncoderConfig(output_dimension=64, num_features=256, num_anchors=512, num_query_tokens=1024)
TINY = LearnedSetEncoderConfig(dimension=8, output_dimension=6, num_features=16, num_anchors=20, num_query_tokens=40)


def random_embeddings(seed: int, n_texts: int = 30, dimension: int = 8) -> TokenEmbeddings:
    rng = np.random.default_rng(seed)
    return TokenEmbeddings.from_list(
        [rng.standard_normal((rng.integers(1, 12), dimension)).astype(np.float32) for _ in range(n_texts)]
    )


def part(embeddings: TokenEmbeddings, start: int, end: int) -> TokenEmbeddings:
    return TokenEmbeddings.from_list([embeddings[i] for i in range(start, end)])


def same_bits(one: LearnedSetEncoder, other: LearnedSetEncoder) -> bool:
    pairs = [(getattr(one.matrices, f.name), getattr(other.matrices, f.name)) for f in fields(LearnedMatrices)]
    return one.config == other.config and all(a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.fixture(scope="module")
def learned(passages: Any) -> LearnedSetEncoder:
    """Fitted to all passages but the last hundred."""
    return LearnedSetEncoder.fit(part(passages.documents, 0, 500), SMALL)


@pytest.fixture(scope="module")
def tiny() -> LearnedSetEncoder:
    return LearnedSetEncoder.fit(random_embeddings(0), TINY)


# What it finds


def recall(encoder: SetEncoder, passages: Any, best: np.ndarray, n: int = 30) -> float:
    documents = encoder.encode_documents(passages.documents)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    order = np.argsort(-(encoder.encode_queries(passages.asked) @ documents.T), axis=1)[:, :n]
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(best, order, strict=True)]))


def test_it_finds_far_more_than_a_fixed_encoding_of_the_same_width(
    learned: LearnedSetEncoder, passages: Any, exact_top_10: np.ndarray
) -> None:
    fixed = FixedDimensionalEncoder(FDEConfig(dimension=128, final_projection_dimension=64))
    assert fixed.output_dimension == learned.output_dimension == 64
    found = recall(learned, passages, exact_top_10)
    assert found > 0.8
    assert found > recall(fixed, passages, exact_top_10) + 0.3


def test_it_finds_far_more_than_a_random_projection_of_the_mean_token(
    learned: LearnedSetEncoder, passages: Any, exact_top_10: np.ndarray
) -> None:
    class MeanToken:
        output_dimension, fingerprint = 64, "mean"
        projection = np.random.default_rng(0).standard_normal((128, 64)).astype(np.float32)

        def encode_documents(self, embeddings: TokenEmbeddings) -> np.ndarray:
            return np.stack([tokens.mean(axis=0) for tokens in embeddings]) @ self.projection

        encode_queries = encode_documents

    assert recall(learned, passages, exact_top_10) > recall(MeanToken(), passages, exact_top_10) + 0.1


def test_passages_that_come_later_are_found_as_well(
    learned: LearnedSetEncoder, passages: Any, exact_top_10: np.ndarray
) -> None:
    order = np.argsort(
        -(learned.encode_queries(passages.asked) @ learned.encode_documents(passages.documents).T), axis=1
    )
    later = [(best[best >= 500], row[:60]) for best, row in zip(exact_top_10, order, strict=True)]
    assert sum(len(best) for best, _ in later) > 20
    assert np.mean(np.concatenate([np.isin(best, row) for best, row in later])) > 0.7


def test_inner_products_order_documents_as_maxsim_does(learned: LearnedSetEncoder, passages: Any) -> None:
    products = learned.encode_queries(passages.asked) @ learned.encode_documents(passages.documents).T
    exact = np.stack([maxsim(tokens, passages.documents) for tokens in passages.asked])
    assert np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(products, exact, strict=True)]) > 0.8


def test_all_documents_have_the_same_length(learned: LearnedSetEncoder, passages: Any) -> None:
    lengths = np.linalg.norm(learned.encode_documents(part(passages.documents, 0, 500)), axis=1)
    np.testing.assert_allclose(lengths, learned.matrices.length, rtol=1e-3)
    later = np.linalg.norm(learned.encode_documents(part(passages.documents, 500, 600)), axis=1)
    assert np.median(later) == pytest.approx(float(learned.matrices.length), rel=1e-3)
    assert later.max() < 1.5 * learned.matrices.length


def test_the_length_of_token_vectors_makes_no_difference(passages: Any) -> None:
    documents, config = part(passages.documents, 0, 100), replace(SMALL, output_dimension=32)
    vectors = []
    for scale in (1.0, 64.0, 1 / 64):  # powers of two, so that only the exponents change
        scaled = TokenEmbeddings(documents.vectors * np.float32(scale), documents.offsets)
        encoder = LearnedSetEncoder.fit(scaled, config)
        queries = TokenEmbeddings(passages.asked.vectors * np.float32(scale), passages.asked.offsets)
        scores = encoder.encode_queries(queries) @ encoder.encode_documents(scaled).T
        vectors.append(scores / np.float32(scale) ** 2)
    for scores in vectors[1:]:
        np.testing.assert_allclose(scores, vectors[0], atol=1e-2 * np.abs(vectors[0]).max())


# Fitting


def test_given_queries_are_what_it_is_fitted_to() -> None:
    rng = np.random.default_rng(0)
    documents = random_embeddings(0, n_texts=100)
    direction = 2 * np.eye(8, dtype=np.float32)[0]
    given, test_queries = (
        TokenEmbeddings.from_list([direction + 0.3 * rng.standard_normal((5, 8)) for _ in range(100)]) for _ in range(2)
    )
    config = replace(TINY, output_dimension=12, num_features=64, num_anchors=200, num_query_tokens=400)
    exact = np.stack([maxsim(tokens, documents) for tokens in test_queries])

    def correlation(encoder: LearnedSetEncoder) -> float:
        products = encoder.encode_queries(test_queries) @ encoder.encode_documents(documents).T
        return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(products, exact, strict=True)]))

    without, fitted = (correlation(LearnedSetEncoder.fit(documents, config, queries)) for queries in (None, given))
    assert fitted > without + 0.04
    with pytest.raises(DimensionMismatchError, match="9-d"):
        LearnedSetEncoder.fit(documents, config, random_embeddings(0, dimension=9))


def test_a_seed_gives_the_same_encoder_and_another_seed_another() -> None:
    one, same = (LearnedSetEncoder.fit(random_embeddings(0), TINY) for _ in range(2))
    other = LearnedSetEncoder.fit(random_embeddings(0), replace(TINY, seed=1))
    assert same_bits(one, same)
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.fingerprint != LearnedSetEncoder.fit(random_embeddings(1), TINY).fingerprint


def test_documents_may_come_in_parts(tiny: LearnedSetEncoder) -> None:
    whole = random_embeddings(0)
    parts = (part(whole, start, start + 7) for start in range(0, 28, 7))
    assert same_bits(LearnedSetEncoder.fit([*parts, part(whole, 28, 30)], TINY), tiny)


def test_without_settings_the_width_is_that_of_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = partial(LearnedSetEncoderConfig, output_dimension=6, num_features=16)
    monkeypatch.setattr(encoder_module, "LearnedSetEncoderConfig", quick)
    encoder = LearnedSetEncoder.fit(random_embeddings(0, dimension=5))
    assert (encoder.config.dimension, encoder.output_dimension) == (5, 6)


def test_a_corpus_with_fewer_tokens_than_anchors_is_used_whole() -> None:
    documents = random_embeddings(0, n_texts=5)
    encoder = LearnedSetEncoder.fit(documents, replace(TINY, num_anchors=1000, num_query_tokens=2000))
    assert encoder.config.num_anchors == len(documents.vectors) < 1000
    assert encoder.matrices.anchors.shape == (8, len(documents.vectors))


@pytest.mark.parametrize("kind", ["zeros", "one token", "one text", "two texts", "one direction", "huge", "minute"])
def test_odd_corpora_give_finite_encodings_without_warnings(kind: str) -> None:
    tokens = random_embeddings(0)
    rows = {
        "zeros": np.zeros_like(tokens.vectors),
        "one token": np.ones_like(tokens.vectors),
        "one direction": tokens.vectors[:, :1] * np.ones((1, 8), dtype=np.float32),
        "huge": tokens.vectors * np.float32(1e6),
        "minute": tokens.vectors * np.float32(1e-12),
    }
    if kind in rows:
        documents = TokenEmbeddings(rows[kind], tokens.offsets)
    else:
        documents = TokenEmbeddings.from_list([tokens[i % (2 if kind == "two texts" else 1)] for i in range(30)])
    encoder = LearnedSetEncoder.fit(documents, TINY)
    assert np.isfinite(encoder.encode_documents(documents)).all()
    assert np.isfinite(encoder.encode_queries(documents)).all()


def test_too_little_to_fit_is_refused() -> None:
    one = TokenEmbeddings.from_list([np.ones((50, 8))])
    for documents in (one, TokenEmbeddings.from_list([np.ones((2, 8))] * 2)):
        with pytest.raises(InvalidInputError, match="fitting needs at least 2 documents"):
            LearnedSetEncoder.fit(documents, TINY)
    with pytest.raises(InvalidInputError):
        LearnedSetEncoder.fit([], TINY)
    with pytest.raises(InvalidInputError):
        LearnedSetEncoder.fit([np.ones((50, 8))], TINY)  # type: ignore[list-item]
    with pytest.raises(DimensionMismatchError):
        LearnedSetEncoder.fit(random_embeddings(0, dimension=9), TINY)


# Encoding


def test_what_is_encoded_beside_a_document_hardly_matters(learned: LearnedSetEncoder, passages: Any) -> None:
    documents = part(passages.documents, 0, 150)
    whole, order = learned.encode_documents(documents), np.random.default_rng(0).permutation(150)
    shuffled = learned.encode_documents(TokenEmbeddings.from_list([documents[i] for i in order]))
    one_by_one = np.concatenate([learned.encode_documents(part(documents, i, i + 1)) for i in range(150)])
    # The last coordinate is the root of a difference, whose rounding errors it enlarges.
    tolerance = 1e-3 * float(learned.matrices.length)
    np.testing.assert_allclose(shuffled, whole[order], atol=tolerance)
    np.testing.assert_allclose(one_by_one, whole, atol=tolerance)


def test_the_order_of_tokens_and_their_number_make_no_difference(tiny: LearnedSetEncoder) -> None:
    tokens = random_embeddings(5, 1)[0]
    long = np.tile(tokens[::-1], (700, 1))  # more than are compared at a time
    one, other = (tiny.encode_documents(TokenEmbeddings.from_list([array])) for array in (tokens, long))
    np.testing.assert_allclose(one, other, atol=1e-4 * float(tiny.matrices.length))


def test_no_documents_give_no_encodings(tiny: LearnedSetEncoder) -> None:
    nothing = TokenEmbeddings.from_list([], dimension=8)
    assert tiny.encode_documents(nothing).shape == tiny.encode_queries(nothing).shape == (0, 6)


def test_tokens_of_another_width_are_refused(tiny: LearnedSetEncoder) -> None:
    for encode in (tiny.encode_documents, tiny.encode_queries):
        with pytest.raises(DimensionMismatchError, match="9-d"):
            encode(random_embeddings(0, dimension=9))
        with pytest.raises(InvalidInputError, match="takes TokenEmbeddings"):
            encode(np.ones((3, 8)))  # type: ignore[arg-type]


def test_a_truncated_encoder_gives_the_first_coordinates(learned: LearnedSetEncoder, passages: Any) -> None:
    short, documents = learned.truncated(20), part(passages.documents, 0, 100)
    assert (short.output_dimension, short.config.output_dimension) == (20, 20)
    for name in ("encode_documents", "encode_queries"):
        whole, prefix = getattr(learned, name)(documents), getattr(short, name)(documents)
        np.testing.assert_allclose(prefix[:, :-1], whole[:, :19], rtol=1e-3, atol=1e-3 * np.abs(whole).max())
    lengths = np.linalg.norm(short.encode_documents(documents), axis=1)
    np.testing.assert_allclose(lengths, learned.matrices.length, rtol=1e-3)
    assert short.fingerprint != learned.fingerprint
    assert same_bits(learned.truncated(64), learned)


@pytest.mark.parametrize("width", [7, 1, 0, -1, 2.5, "3", None])
def test_an_encoder_is_not_truncated_to_what_it_has_not(tiny: LearnedSetEncoder, width: Any) -> None:
    with pytest.raises(InvalidInputError, match="output_dimension"):
        tiny.truncated(width)


# Settings


@pytest.mark.parametrize(
    "settings",
    [
        {"dimension": 0},
        {"dimension": MAX_SIZE + 1},
        {"output_dimension": 1},
        {"output_dimension": True},
        {"num_features": 128.0},
        {"num_features": "128"},
        {"num_features": 16, "output_dimension": 19},
        {"num_anchors": -1},
        {"num_query_tokens": None},
        {"num_sample_tokens": 0},
        {"feature_threshold": 1.0},
        {"feature_threshold": 0},
        {"feature_threshold": float("nan")},
        {"feature_threshold": float("inf")},
        {"seed": -1},
        {"seed": MAX_SEED + 1},
        {"num_features": MAX_SIZE, "num_anchors": MAX_SIZE, "num_query_tokens": MAX_SIZE, "dimension": MAX_SIZE},
    ],
    ids=str,
)
def test_invalid_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        LearnedSetEncoderConfig(**settings)


def test_matrices_that_do_not_fit_the_settings_are_refused(tiny: LearnedSetEncoder) -> None:
    for wrong in (
        replace(tiny.matrices, hidden=tiny.matrices.hidden[:, 1:]),
        replace(tiny.matrices, anchors=tiny.matrices.anchors.astype(np.float64)),
        replace(tiny.matrices, anchor_means=np.full_like(tiny.matrices.anchor_means, np.nan)),
    ):
        with pytest.raises(InvalidInputError, match="must be finite float32"):
            LearnedSetEncoder(tiny.config, wrong)
    for spread in (0.0, -1.0):
        with pytest.raises(InvalidInputError, match="spread must be above 0"):
            LearnedSetEncoder(tiny.config, replace(tiny.matrices, spread=np.array(spread, dtype=np.float32)))


# Files


def test_a_saved_encoder_comes_back_with_the_same_bits(learned: LearnedSetEncoder, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    learned.save(path)
    assert path.stat().st_size == LearnedMatrices.n_bytes(learned.config)
    loaded = LearnedSetEncoder.load(path, learned.config)
    assert same_bits(loaded, learned)
    assert loaded.fingerprint == learned.fingerprint
    documents = random_embeddings(0, dimension=128)
    assert loaded.encode_documents(documents).tobytes() == learned.encode_documents(documents).tobytes()
    assert loaded.encode_queries(documents).tobytes() == learned.encode_queries(documents).tobytes()


def test_a_truncated_encoder_can_be_saved(tiny: LearnedSetEncoder, tmp_path: Path) -> None:
    short = tiny.truncated(3)
    short.save(tmp_path / "weights")
    assert same_bits(LearnedSetEncoder.load(tmp_path / "weights", short.config), short)


def test_files_that_are_too_short_too_long_or_not_finite_are_refused(tiny: LearnedSetEncoder, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    tiny.save(path)
    content = path.read_bytes()
    not_finite = np.frombuffer(content, dtype="<f4").copy()
    not_finite[17] = np.inf
    for wrong in (b"", content[:-4], content[:-1], content + b"\0", content * 2, not_finite.tobytes()):
        path.write_bytes(wrong)
        with pytest.raises(EncoderError, match="fit and save the encoder again"):
            LearnedSetEncoder.load(path, tiny.config)
    with pytest.raises(EncoderError):
        LearnedSetEncoder.load(path, replace(tiny.config, num_anchors=19))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        LearnedSetEncoder.load(path, tiny.config)


def test_long_documents_are_enough_documents() -> None:
    rng = np.random.default_rng(8)
    topics = rng.standard_normal((60, 16)).astype(np.float32)
    documents = TokenEmbeddings.from_list(
        [topics[rng.integers(60, size=60)] + rng.standard_normal((60, 16)).astype(np.float32) for _ in range(300)]
    )
    config = replace(TINY, dimension=16, output_dimension=100, num_features=128, num_anchors=200, num_query_tokens=400)
    drawn: list[int] = []
    original = fit._matches

    def matches(sample: list[np.ndarray], tokens: np.ndarray) -> np.ndarray:
        drawn.append(len(sample))
        return original(sample, tokens)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "_matches", matches)
        LearnedSetEncoder.fit(documents, replace(config, num_sample_tokens=600))
        LearnedSetEncoder.fit(documents, replace(config, num_sample_tokens=15_000))
    assert drawn == [200, 250]

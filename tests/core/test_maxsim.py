from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera_core import TokenEmbeddings, maxsim
from muvera_core.errors import DimensionMismatchError
from muvera_core.maxsim import cpu
from muvera_core.storage.token_codec import TokenCodec


def ragged(seed: int, lengths: list[int], dimension: int) -> TokenEmbeddings:
    rng = np.random.default_rng(seed)
    return TokenEmbeddings.from_list([rng.standard_normal((n, dimension)) for n in lengths], dimension)


@given(
    lengths=st.lists(st.integers(1, 30), max_size=20),
    n_query=st.integers(1, 40),
    dimension=st.integers(1, 20),
    group=st.integers(1, 100),
)
@settings(max_examples=80, deadline=None)
def test_score_is_the_sum_of_best_matches(lengths: list[int], n_query: int, dimension: int, group: int) -> None:
    documents = ragged(0, lengths, dimension)
    query = ragged(1, [n_query], dimension)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "TOKENS_PER_GROUP", group)
        scores = maxsim(query, documents)
    expected = [max_sum(query.astype(np.float64), document.astype(np.float64)) for document in documents]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def max_sum(query: np.ndarray, document: np.ndarray) -> float:
    return sum(max(float(q @ d) for d in document) for q in query)


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_compact_rows_score_as_their_decoded_vectors(precision: str) -> None:
    documents, query = ragged(0, [5, 1, 40], 16), ragged(1, [7], 16)[0]
    codec = TokenCodec(precision, 16)  # type: ignore[arg-type]
    rows = codec.encode(documents.vectors, documents.offsets)
    codes, scales = codec.split(rows, documents.offsets)
    scores = cpu.maxsim_scaled(query, codes, scales, documents.offsets)
    decoded = TokenEmbeddings(codec.decode(rows, documents.offsets), documents.offsets)
    np.testing.assert_allclose(scores, maxsim(query, decoded), rtol=1e-5)


def test_negative_products_are_kept() -> None:
    assert maxsim(np.array([[1.0]], np.float32), TokenEmbeddings.from_list([[[-2.0], [-3.0]]])).tolist() == [-2.0]


def test_another_width_is_refused() -> None:
    with pytest.raises(DimensionMismatchError, match="got 2-d token vectors, but the query works with 3-d ones"):
        maxsim(np.ones((1, 3), np.float32), ragged(0, [2], 2))


@pytest.mark.parametrize("precision", ["int8", "float16"])
@pytest.mark.parametrize("group", [1, 7, 4096])
def test_many_queries_score_as_each_alone(precision: str, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "TOKENS_PER_GROUP", group)
    documents = ragged(1, [3, 1, 9, 2, 30, 1], 12)
    queries = list(ragged(2, [4, 1, 17, 2], 12))
    codec = TokenCodec(precision, 12)  # type: ignore[arg-type]
    codes, scales = codec.split(codec.encode(documents.vectors, documents.offsets), documents.offsets)
    together = cpu.maxsim_of_many(queries, codes, scales, documents.offsets)
    alone = [cpu.maxsim_scaled(query, codes, scales, documents.offsets) for query in queries]
    assert together.shape == (4, 6)
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5, atol=1e-5)

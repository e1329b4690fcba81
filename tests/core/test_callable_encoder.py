from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from encoder_checks import EncoderChecks

from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder, CallableEncoder
from muvera_core.errors import EncoderError, EncoderMismatchError, InvalidInputError

MODEL = BundledEncoder(max_query_tokens=16_384)


def ask(texts: list[str]) -> list[npt.NDArray[np.float32]]:
    return list(MODEL.encode_queries(texts))


def read(texts: list[str]) -> list[npt.NDArray[np.float32]]:
    return list(MODEL.encode_documents(texts))


def with_functions(encode: Callable[[list[str]], Any], **spans: Any) -> CallableEncoder:
    return CallableEncoder(encode, encode, 2, "made here", **spans)


class TestWithSpans(EncoderChecks):
    @pytest.fixture
    def encoder(self) -> CallableEncoder:
        return CallableEncoder(
            ask, read, 128, "minilm", query_spans=MODEL.query_spans, document_spans=MODEL.document_spans
        )

    @pytest.fixture
    def limited(self) -> CallableEncoder:
        cut = BundledEncoder(max_document_tokens=40)
        return CallableEncoder(
            cut.encode_queries, cut.encode_documents, 128, "minilm", document_spans=cut.document_spans
        )


class TestWithoutSpans(EncoderChecks):
    finds_words = False

    @pytest.fixture
    def encoder(self) -> CallableEncoder:
        return CallableEncoder(ask, read, 128, "minilm")

    @pytest.fixture
    def limited(self) -> CallableEncoder:
        cut = BundledEncoder(max_document_tokens=40)
        return CallableEncoder(cut.encode_queries, cut.encode_documents, 128, "minilm")


def test_vectors_are_scaled_to_unit_length() -> None:
    encoder = with_functions(lambda texts: [[[3, 4], [0, 2]]] * len(texts))
    np.testing.assert_allclose(encoder.encode_documents(["a"]).vectors, [[0.6, 0.8], [0.0, 1.0]], rtol=1e-6)


def test_no_texts_call_no_function() -> None:
    def refuse(texts: list[str]) -> Sequence[npt.ArrayLike]:
        raise AssertionError("called")

    assert with_functions(refuse).encode_queries([]).vectors.shape == (0, 2)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        pytest.param([[[1, 0]]], "got 2 texts and returned what cannot be used: 1 array", id="too few"),
        pytest.param([[[1, 0]], [[1, 0, 0]]], "item 1 has 3-d token vectors, expected 2-d", id="another width"),
        pytest.param([[1, 0], [0, 1]], r"item 0 must have shape \(tokens, dimension\)", id="one vector per text"),
        pytest.param([[[1, 0]], []], "item 1 must have shape", id="no tokens"),
        pytest.param([[[1, 0]], [[float("nan"), 0]]], "item 1 has NaN", id="NaN"),
        pytest.param(None, "'NoneType' object is not iterable", id="nothing"),
        pytest.param({"data": 1, "model": 2}, "item 0", id="a whole answer of a service"),
    ],
)
def test_what_cannot_be_used_is_an_encoder_error(returned: Any, message: str) -> None:
    encoder = with_functions(lambda texts: returned)
    with pytest.raises(EncoderError, match=message) as caught:
        encoder.encode_documents(["a", "b"])
    assert "encode_documents of the encoder 'made here'" in str(caught.value)
    assert "one array of shape (tokens, 2) per text" in str(caught.value)


def test_what_a_function_raises_arrives_and_loses_nothing() -> None:
    def fail(texts: list[str]) -> Sequence[npt.ArrayLike]:
        raise ConnectionError("the service is down")

    working = [True]
    encoder = with_functions(lambda texts: [[[1.0, 0.0]] for _ in texts] if working else fail(texts))
    with MuveraIndex.create(None, encoder) as index:
        index.add(["kept"], ids=["a"])
        working.clear()
        with pytest.raises(ConnectionError, match="the service is down"):
            index.add(["lost"], ids=["b"])
        with pytest.raises(ConnectionError):
            index.search("anything")
        assert index.count() == 1


def test_an_index_opens_with_the_same_name_only(tmp_path: Any) -> None:
    def encode(texts: list[str]) -> list[npt.ArrayLike]:
        return [[[1.0, 0.0]] for _ in texts]

    with MuveraIndex.create(tmp_path / "index", with_functions(encode)) as index:
        index.add(["a"])
    with pytest.raises(EncoderMismatchError):
        MuveraIndex.open(tmp_path / "index", CallableEncoder(encode, encode, 2, "another"))
    with MuveraIndex.open(tmp_path / "index", with_functions(encode)) as index:
        assert index.count() == 1


@pytest.mark.parametrize("spans", [[0, 1], [[0.0, 1.0]], [[0, 1, 2]], [[0, 1], [2]]])
def test_spans_of_another_shape_are_refused(spans: Any) -> None:
    encoder = with_functions(lambda texts: [[[1, 0]] for _ in texts], query_spans=lambda text: spans)
    with pytest.raises(EncoderError, match=r"query_spans .* whole numbers of shape \(tokens, 2\)"):
        encoder.query_spans("a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encode_queries": "http://localhost"}, "encode_queries must be a function"),
        ({"document_spans": 3}, "document_spans must be a function"),
        ({"dimension": 0}, "dimension must be at least 1"),
        ({"name": ""}, "name"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        CallableEncoder(**{"encode_queries": ask, "encode_documents": read, "dimension": 2, "name": "x", **arguments})

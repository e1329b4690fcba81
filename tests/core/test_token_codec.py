from __future__ import annotations

import numpy as np
import pytest

from muvera_core.errors import InvalidInputError
from muvera_core.storage.token_codec import TokenCodec


def test_int8_is_within_half_a_step_of_each_token() -> None:
    vectors = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32)
    vectors[3] *= 1e-6
    codec = TokenCodec("int8", 64)
    step = np.abs(vectors).max(axis=1, keepdims=True) / 127
    assert (np.abs(codec.decode(codec.encode(vectors)) - vectors) <= step * 0.5001).all()
    assert codec.row_dtype.itemsize == 64 + 4


def test_float16_rounds_to_float16() -> None:
    vectors = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    codec = TokenCodec("float16", 8)
    np.testing.assert_array_equal(codec.decode(codec.encode(vectors)), vectors.astype(np.float16))
    assert codec.row_dtype.itemsize == 16


@pytest.mark.parametrize("vector", [[0.0, 0.0], [1e-45, 0.0], [3e38, -3e38]], ids=["zero", "subnormal", "huge"])
def test_int8_takes_extreme_vectors(vector: list[float]) -> None:
    codec = TokenCodec("int8", 2)
    decoded = codec.decode(codec.encode(np.array([vector], np.float32)))
    np.testing.assert_allclose(decoded[0], vector, rtol=0.01, atol=1e-44)


def test_float16_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(InvalidInputError, match="too large for float16"):
        TokenCodec("float16", 1).encode(np.array([[1e6]], np.float32))


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'int8' or 'float16', got 'int4'"):
        TokenCodec("int4", 8)  # type: ignore[arg-type]

from __future__ import annotations

import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera_core.errors import InvalidInputError
from muvera_core.storage.levels import LARGE, RANGE, levels
from muvera_core.storage.rotation import rotate, rotate_back
from muvera_core.storage.token_codec import PRECISIONS, TokenCodec, TokenPrecision

SLICED: tuple[TokenPrecision, ...] = ("8bit", "4bit", "2bit")
# The largest error of a token, as a share of its length, over vectors of many widths.
ERRORS = {"float16": 0.001, "int8": 0.03, "8bit": 0.03, "4bit": 0.35, "2bit": 1.1}
DIMENSIONS = [1, 2, 3, 5, 16, 63, 128, 1030]


def unit_vectors(n: int, dimension: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, dimension)).astype(np.float32)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def stored(codec: TokenCodec, vectors: np.ndarray) -> np.ndarray:
    offsets = np.array([0, len(vectors)])
    return codec.decode(codec.encode(vectors, offsets), offsets)


def error(codec: TokenCodec, vectors: np.ndarray) -> np.ndarray:
    share: np.ndarray = np.linalg.norm(stored(codec, vectors) - vectors, axis=1) / np.linalg.norm(vectors, axis=1)
    return share


@st.composite
def documents(draw: st.DrawFn) -> tuple[int, np.ndarray, np.ndarray]:
    """A width, tokens of any length from 1e-3 to 1e3, and the offsets of some documents."""
    dimension = draw(st.integers(1, 40))
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    vectors = unit_vectors(sum(lengths), dimension, draw(st.integers(0, 1 << 30)))
    vectors *= 10 ** rng.uniform(-3, 3, (len(vectors), 1)).astype(np.float32)
    return dimension, vectors.astype(np.float32), np.cumsum([0, *lengths])


def test_int8_is_within_half_a_step_of_each_token() -> None:
    vectors = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32)
    vectors[3] *= 1e-6
    codec = TokenCodec("int8", 64)
    step = np.abs(vectors).max(axis=1, keepdims=True) / 127
    assert (np.abs(stored(codec, vectors) - vectors) <= step * 0.5001).all()
    assert codec.row_dtype.itemsize == 64 + 4


def test_float16_rounds_to_float16() -> None:
    vectors = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    codec = TokenCodec("float16", 8)
    np.testing.assert_array_equal(stored(codec, vectors), vectors.astype(np.float16))
    assert codec.row_dtype.itemsize == 16


@pytest.mark.parametrize("vector", [[0.0, 0.0], [1e-45, 0.0], [3e38, -3e38]], ids=["zero", "subnormal", "huge"])
def test_int8_takes_extreme_vectors(vector: list[float]) -> None:
    decoded = stored(TokenCodec("int8", 2), np.array([vector], np.float32))
    np.testing.assert_allclose(decoded[0], vector, rtol=0.01, atol=1e-44)


def test_float16_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(InvalidInputError, match="too large for float16"):
        TokenCodec("float16", 1).encode(np.array([[1e6]], np.float32), np.array([0, 1]))


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'2bit', 'int8' or 'float16', got 'int4'"):
        TokenCodec("int4", 8)  # type: ignore[arg-type]


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_the_rotation_keeps_inner_products_and_can_be_undone(dimension: int) -> None:
    left, right = unit_vectors(20, dimension), unit_vectors(20, dimension, 1)
    np.testing.assert_allclose(rotate(left) @ rotate(right).T, left @ right.T, atol=1e-5)
    np.testing.assert_allclose(rotate_back(rotate(left)), left, atol=1e-5)


def test_the_rotation_never_changes() -> None:
    """It is part of the format: rows that were written with another one would give wrong scores."""
    rounded = np.rint(rotate(np.eye(64, dtype=np.float32)) * (1 << 16)).astype("<i4")
    assert zlib.crc32(rounded.tobytes()) == 1467989262


def test_a_rotated_spike_is_spread_over_all_coordinates() -> None:
    assert np.abs(rotate(np.eye(128, dtype=np.float32))).max() < 0.5


@pytest.mark.parametrize("precision", SLICED)
def test_levels_never_change(precision: TokenPrecision) -> None:
    table = levels(precision)
    expected = {"8bit": 3612935089, "4bit": 2956349152, "2bit": 666151287}
    assert zlib.crc32(table.code_of.tobytes() + table.level_of.tobytes()) == expected[precision]


@pytest.mark.parametrize("precision", SLICED)
def test_each_magnitude_gets_a_level_of_its_half(precision: TokenPrecision) -> None:
    table = levels(precision)
    found = table.level_of[table.code_of].astype(int)
    assert ((found >= LARGE) == (np.arange(128) >= LARGE)).all()
    assert (np.diff(found) >= 0).all()
    assert ((table.code_of & 1 == 1) == (np.arange(128) >= LARGE)).all()
    np.testing.assert_array_equal(table.level_of[table.code_of | 2], -found)


def test_four_bits_are_nearly_the_best_levels_for_a_normal_distribution() -> None:
    numbers = np.random.default_rng(0).standard_normal(200_000)
    table = levels("4bit")
    magnitudes = np.minimum(np.rint(np.abs(numbers) / RANGE * 127), 127).astype(int)
    rounded = np.sign(numbers) * table.level_of[table.code_of[magnitudes]] * RANGE / 127
    assert np.mean((rounded - numbers) ** 2) < 1.05 * 0.009497  # Max, 1960: the least possible with 16 levels


@pytest.mark.parametrize("precision", PRECISIONS)
@given(documents())
def test_a_stored_token_is_near_the_given_one(
    precision: TokenPrecision, some: tuple[int, np.ndarray, np.ndarray]
) -> None:
    dimension, vectors, offsets = some
    codec = TokenCodec(precision, dimension)
    rows = codec.encode(vectors, offsets)
    assert rows.nbytes == len(vectors) * codec.row_dtype.itemsize == len(vectors) * codec.layout.row_bytes
    errors = np.linalg.norm(codec.decode(rows, offsets) - vectors, axis=1) / np.linalg.norm(vectors, axis=1)
    assert errors.max() < ERRORS[precision]


@pytest.mark.parametrize(("precision", "mean"), [("8bit", 0.0085), ("4bit", 0.105), ("2bit", 0.38)])
@pytest.mark.parametrize("dimension", [128, 1030])
def test_the_mean_error_is_that_of_the_levels(precision: TokenPrecision, mean: float, dimension: int) -> None:
    assert mean * 0.8 < error(TokenCodec(precision, dimension), unit_vectors(300, dimension)).mean() < mean


@pytest.mark.parametrize("precision", SLICED)
@given(documents())
def test_products_in_the_codecs_space_are_those_of_decoded_tokens(
    precision: TokenPrecision, some: tuple[int, np.ndarray, np.ndarray]
) -> None:
    dimension, vectors, offsets = some
    codec, queries = TokenCodec(precision, dimension), unit_vectors(5, dimension, 1)
    rows = codec.encode(vectors, offsets)
    codes, scales = codec.split(rows, offsets)
    assert codes.dtype == np.int8
    assert scales is not None
    products = codec.to_codec_space(queries) @ (codes * scales[:, None]).T
    lengths = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(products / lengths, queries @ codec.decode(rows, offsets).T / lengths, atol=1e-5)


@pytest.mark.parametrize("precision", SLICED)
@given(documents())
def test_a_stored_token_has_the_product_with_the_given_one_that_this_has_with_itself(
    precision: TokenPrecision, some: tuple[int, np.ndarray, np.ndarray]
) -> None:
    dimension, vectors, _ = some
    products = (stored(TokenCodec(precision, dimension), vectors) * vectors).sum(axis=1)
    np.testing.assert_allclose(products, (vectors * vectors).sum(axis=1), rtol=0.01)


@pytest.mark.parametrize("precision", PRECISIONS)
@given(documents())
def test_the_bytes_of_a_document_depend_on_this_document_alone(
    precision: TokenPrecision, some: tuple[int, np.ndarray, np.ndarray]
) -> None:
    dimension, vectors, offsets = some
    codec = TokenCodec(precision, dimension)
    together = codec.encode(vectors, offsets)
    for start, end in pairwise(offsets.tolist()):
        alone = codec.encode(vectors[start:end], np.array([0, end - start]))
        # The rotation's sums may be rounded in another way for another number of rows.
        left, right = (codec.decode(rows, np.array([0, end - start])) for rows in (alone, together[start:end]))
        lengths = np.linalg.norm(vectors[start:end], axis=1, keepdims=True)
        np.testing.assert_allclose(left / lengths, right / lengths, atol=ERRORS[precision])


@pytest.mark.parametrize("precision", SLICED)
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_leading_bits_are_those_of_two_bits(precision: TokenPrecision, dimension: int) -> None:
    vectors, offsets = unit_vectors(30, dimension), np.array([0, 1, 12, 30])
    codec = TokenCodec(precision, dimension)
    coarse, scales = codec.split(codec.encode(vectors, offsets), offsets, coarse=True)
    codes, same_scales = codec.split(codec.encode(vectors, offsets), offsets)
    assert set(np.abs(coarse).ravel().tolist()) <= {20, 66}
    np.testing.assert_array_equal(scales, same_scales)
    np.testing.assert_array_equal(np.abs(coarse) == 66, np.abs(codes) >= LARGE)
    assert (coarse.astype(int) * codes >= 0).all()


@pytest.mark.parametrize("precision", SLICED)
def test_leading_bits_order_tokens_much_like_all_bits(precision: TokenPrecision) -> None:
    vectors, offsets = unit_vectors(2000, 128), np.array([0, 2000])
    codec = TokenCodec(precision, 128)
    query = codec.to_codec_space(unit_vectors(1, 128, 5))[0]
    codes, scales = codec.split(codec.encode(vectors, offsets), offsets, coarse=True)
    assert scales is not None
    assert np.corrcoef((codes @ query) * scales, vectors @ unit_vectors(1, 128, 5)[0])[0, 1] > 0.92


@pytest.mark.parametrize("precision", SLICED)
@pytest.mark.parametrize("length", [2.0**-20, 1e-4, 1.0, 1e4, 3e4])
def test_lengths_within_the_range_of_float16_are_kept(precision: TokenPrecision, length: float) -> None:
    vectors = unit_vectors(50, 128) * np.float32(length)
    assert error(TokenCodec(precision, 128), vectors).max() < ERRORS[precision]


@pytest.mark.parametrize("precision", SLICED)
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_zeros_stay_zeros_and_so_does_what_float16_rounds_to_zero(precision: TokenPrecision, dimension: int) -> None:
    vectors = unit_vectors(3, dimension)
    vectors[0], vectors[1] = 0, vectors[1] * np.float32(1e-45)
    decoded = stored(TokenCodec(precision, dimension), vectors)
    assert not decoded[:2].any()
    assert decoded[2].any()


@pytest.mark.parametrize("precision", SLICED)
def test_a_vector_that_is_too_long_for_float16_is_refused(precision: TokenPrecision) -> None:
    vectors = unit_vectors(3, 16) * np.float32(2.0**40)
    with pytest.raises(InvalidInputError, match=r"too long for '.bit'.*scale it to unit length"):
        TokenCodec(precision, 16).encode(vectors, np.array([0, 3]))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_tokens_take_no_bytes(precision: TokenPrecision) -> None:
    codec = TokenCodec(precision, 7)
    rows = codec.encode(np.empty((0, 7), np.float32), np.array([0]))
    assert rows.nbytes == 0
    assert codec.decode(rows, np.array([0])).shape == (0, 7)

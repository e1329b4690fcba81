from __future__ import annotations

import numpy as np
import pytest

from muvera_core import native
from muvera_core.stage_one import FlatCandidates, scanning
from muvera_core.stage_one.vector_codes import EncodedVectors, decode_vectors, encode_queries, encode_vectors

muvera_kernels = pytest.importorskip("muvera_kernels")
KERNELS = [*muvera_kernels.available_kernels(), "numpy"]
WIDE = 1280


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MUVERA_KERNEL", request.param)
    return str(request.param)


def unit(seed: int, n: int, dimension: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, dimension)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def of_codes(encoded: EncodedVectors, queries: np.ndarray) -> np.ndarray:
    """Inner products in whole numbers, shape (queries, vectors)."""
    codes = encode_queries(queries, queries.shape[1]).astype(np.int64)
    products = codes @ encoded.codes.T.astype(np.int64)
    return np.asarray((products.astype(np.float64) * encoded.scales).astype(np.float32))


# Codes


@pytest.mark.parametrize("dimension", [1, 3, 16, 100, 256, 2560])
def test_decoded_vectors_are_within_half_a_step_of_the_rotated_ones(dimension: int) -> None:
    vectors = unit(0, 50, dimension)
    encoded = encode_vectors(vectors)
    distance = np.linalg.norm(decode_vectors(encoded) - vectors, axis=1)
    assert (distance <= 0.501 * encoded.scales * np.sqrt(dimension) + 1e-6).all()


@pytest.mark.parametrize("dimension", [16, 100, 2560])
def test_vectors_that_are_decoded_and_encoded_again_keep_their_codes(dimension: int) -> None:
    encoded = encode_vectors(unit(0, 50, dimension))
    np.testing.assert_array_equal(encode_vectors(decode_vectors(encoded)).codes, encoded.codes)


def test_a_vector_has_the_same_codes_in_each_batch() -> None:
    vectors = unit(0, 70, 96)
    together = encode_vectors(vectors)
    for i in range(70):
        alone = encode_vectors(vectors[i : i + 1])
        np.testing.assert_array_equal(alone.codes[0], together.codes[i])
        assert alone.scales[0] == together.scales[i]


def test_a_vector_of_zeros_stays_one() -> None:
    np.testing.assert_array_equal(decode_vectors(encode_vectors(np.zeros((2, 8), np.float32))), np.zeros((2, 8)))


def test_one_large_coordinate_takes_no_digits_from_the_others() -> None:
    vectors = unit(0, 20, 256)
    vectors[:, 7] = 10
    error = decode_vectors(encode_vectors(vectors)) - vectors
    assert np.abs(error).max() < 0.02  # without a rotation, half a step would be 10 / 127 / 2


# Scans


@pytest.mark.parametrize("dimension", [1, 5, 63, 64, 65, 128, 300, 1023])
def test_each_kernel_gives_the_order_of_the_products_in_whole_numbers(kernel: str, dimension: int) -> None:
    vectors, queries = unit(0, 300, dimension), unit(1, 9, dimension)
    flat = FlatCandidates.from_vectors(np.arange(300), vectors)
    scores = of_codes(encode_vectors(vectors), queries)
    for k in (1, 7, 300):
        expected = [np.lexsort((np.arange(300), -row))[:k].tolist() for row in scores]
        assert [found.tolist() for found in flat.search_many(queries, k)] == expected
        assert [flat.search(query, k).tolist() for query in queries] == expected


def test_large_sums_do_not_overflow(kernel: str) -> None:
    """Codes of the largest size throughout, over more coordinates than 32 bits can add up."""
    dimension = 70_001  # odd, so that nothing is mixed
    signs = np.where(np.random.default_rng(0).random((3, dimension)) < 0.5, -1, 1).astype(np.float32)
    flat = FlatCandidates.from_vectors(np.arange(3), signs)
    assert [flat.search(row, 1).tolist() for row in signs] == [[0], [1], [2]]
    opposite = flat.search(-signs[1], 3).tolist()
    assert opposite[-1] == 1


def test_wide_vectors_are_found_in_two_steps_as_well_as_in_one(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = unit(0, 3000, WIDE), unit(1, 5, WIDE)
    vectors[::3] += 0.1 * queries[0]
    flat = FlatCandidates.from_vectors(np.arange(3000), vectors)
    in_two_steps = flat.search_many(queries, 20)
    monkeypatch.setattr(scanning, "_LEAST_KEPT", 3000)
    in_one = flat.search_many(queries, 20)
    same = np.mean([np.isin(a, b).mean() for a, b in zip(in_two_steps, in_one, strict=True)])
    assert same >= 0.97
    assert in_two_steps[0][:5].tolist() == in_one[0][:5].tolist()


@pytest.mark.parametrize("dimension", [40, WIDE])
def test_all_kernels_find_the_same(dimension: int, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = FlatCandidates.from_vectors(np.arange(1200), unit(0, 1200, dimension))
    flat.publish(np.arange(0, 1200, 9))
    found = []
    for name in muvera_kernels.available_kernels():
        for n_threads in (1, 3):
            monkeypatch.setenv("MUVERA_KERNEL", name)
            monkeypatch.setenv("MUVERA_NUM_THREADS", str(n_threads))
            found.append([row.tolist() for row in flat.search_many(unit(1, 70, dimension), 30)])
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("dimension", [24, WIDE])
def test_only_what_is_admitted_is_found(kernel: str, dimension: int) -> None:
    flat = FlatCandidates.from_vectors(np.arange(2000), unit(0, 2000, dimension))
    flat.publish(np.arange(0, 2000, 2))
    for step in (1, 3, 70):
        allowed = np.arange(5, 2000, step)
        wanted = allowed[allowed % 2 == 1]
        found = flat.search(unit(1, 1, dimension)[0], 2000, allowed)
        assert sorted(found.tolist()) == wanted.tolist()
        assert len(flat.search(unit(1, 1, dimension)[0], 4, allowed)) == min(4, len(wanted))


@pytest.mark.parametrize("dimension", [24, WIDE])
def test_thousands_of_equal_vectors_are_ordered_by_key(kernel: str, dimension: int) -> None:
    one = unit(0, 1, dimension)
    keys = np.random.default_rng(0).permutation(3000)
    flat = FlatCandidates.from_vectors(keys, np.repeat(one, 3000, axis=0))
    assert flat.search(one[0], 500).tolist() == list(range(500))


def test_an_index_made_without_kernels_is_searched_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, query = unit(0, 3000, WIDE), unit(1, 1, WIDE)[0]
    monkeypatch.setenv("MUVERA_KERNEL", "numpy")
    flat = FlatCandidates.from_vectors(np.arange(3000), vectors)
    expected = flat.search(query, 10).tolist()
    monkeypatch.delenv("MUVERA_KERNEL")
    assert flat.search(query, 10).tolist() == expected
    flat.stage([3000], query[None])
    flat.publish([])
    assert flat.search(query, 1).tolist() == [3000]


def test_without_compiled_kernels_numpy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_installed", None)
    vectors = unit(0, 500, 32)
    flat = FlatCandidates.from_vectors(np.arange(500), vectors)
    assert flat.search(vectors[7], 1).tolist() == [7]

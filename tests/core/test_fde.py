from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muvera_core import FDEConfig, FixedDimensionalEncoder, TokenEmbeddings, maxsim
from muvera_core.errors import DimensionMismatchError, InvalidInputError
from muvera_core.native import kernels
from muvera_core.set_encoders.fde_matrices import FDEMatrices
from muvera_core.token_embeddings import unit_length

DATA = Path(__file__).parent / "data"
CASES: list[dict[str, Any]] = json.loads((DATA / "google_fde.json").read_text())
KERNELS = ["numpy", *(module.available_kernels() if (module := kernels()) is not None else ())]
SMALL = FDEConfig(
    dimension=8, num_repetitions=3, num_simhash_projections=3, projection_dimension=4, fill_empty_partitions=True
)


def unit_rows(rng: np.random.Generator, n: int, dimension: int) -> np.ndarray:
    rows: np.ndarray = rng.standard_normal((n, dimension)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def ragged(seed: int, lengths: list[int], dimension: int = 8) -> TokenEmbeddings:
    rng = np.random.default_rng(seed)
    return TokenEmbeddings.from_list([unit_rows(rng, n, dimension) for n in lengths], dimension)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case {case['case']}")
def test_encodings_equal_the_reference_given_its_matrices(
    case: dict[str, Any], kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUVERA_KERNEL", kernel)
    with np.load(DATA / "google_fde.npz") as arrays:
        part = {name.split("_", 1)[1]: arrays[name] for name in arrays.files if name.startswith(f"case{case['case']}_")}
    names = ("dimension", "num_repetitions", "num_simhash_projections", "projection_dimension")
    config = FDEConfig(
        **{name: case[name] for name in names},
        final_projection_dimension=case["final_projection_dimension"],
        projection="count_sketch",
    )
    matrices = FDEMatrices(part["simhash"], part.get("projection"), part.get("sketch_index"), part.get("sketch_sign"))
    tokens = TokenEmbeddings.from_list([part["points"]])
    filled = FixedDimensionalEncoder(replace(config, fill_empty_partitions=True), matrices=matrices)
    unfilled = FixedDimensionalEncoder(config, matrices=matrices)
    np.testing.assert_allclose(filled.encode_queries(tokens)[0], part["query"], atol=1e-5)
    np.testing.assert_allclose(filled.encode_documents(tokens)[0], part["document_filled"], atol=1e-5)
    np.testing.assert_allclose(unfilled.encode_documents(tokens)[0], part["document"], atol=1e-5)


def slow_document_encoding(tokens: np.ndarray, encoder: FixedDimensionalEncoder) -> np.ndarray:
    """The definition, loop by loop."""
    config, matrices = encoder.config, encoder.matrices
    n_bits = config.num_simhash_projections
    rounds = []
    for r in range(config.num_repetitions):
        bits = [[int(value > 0) for value in token @ matrices.simhash[r]] for token in tokens]
        values = tokens if matrices.projection is None else tokens @ matrices.projection[r]
        for p in range(1 << n_bits):
            wanted = [(p ^ (p >> 1)) >> (n_bits - 1 - b) & 1 for b in range(n_bits)]
            distances = [sum(a != b for a, b in zip(token, wanted, strict=True)) for token in bits]
            inside = [i for i, distance in enumerate(distances) if distance == 0]
            rounds.append(values[inside].mean(axis=0) if inside else values[int(np.argmin(distances))])
    return np.concatenate(rounds)


@given(n=st.integers(1, 12), k=st.integers(0, 5), seed=st.integers(0, 1000), projected=st.booleans())
@settings(max_examples=60, deadline=None)
def test_documents_follow_the_definition(n: int, k: int, seed: int, projected: bool) -> None:
    config = replace(SMALL, num_simhash_projections=k, projection_dimension=4 if projected else None, seed=seed)
    encoder = FixedDimensionalEncoder(config)
    tokens = ragged(seed, [n])
    expected = slow_document_encoding(tokens[0], encoder)
    np.testing.assert_allclose(encoder.encode_documents(tokens)[0], expected, atol=1e-5)


def test_empty_partition_takes_the_nearest_token_and_the_first_of_equals() -> None:
    config = FDEConfig(
        dimension=2,
        num_repetitions=1,
        num_simhash_projections=2,
        projection_dimension=None,
        fill_empty_partitions=True,
    )
    encoder = FixedDimensionalEncoder(config, matrices=FDEMatrices(np.eye(2, dtype=np.float32)[None]))
    # Bits are the signs. Partitions 0..3 stand for bits 00, 01, 11, 10.
    tokens = TokenEmbeddings.from_list([[[0.9, 0.1], [-0.8, -0.6]]])
    encoding = encoder.encode_documents(tokens)[0].reshape(4, 2)
    np.testing.assert_allclose(encoding, [[-0.8, -0.6], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]], atol=1e-7)


def test_queries_are_summed_and_never_filled() -> None:
    config = FDEConfig(
        dimension=2,
        num_repetitions=1,
        num_simhash_projections=1,
        projection_dimension=None,
        fill_empty_partitions=True,
    )
    encoder = FixedDimensionalEncoder(config, matrices=FDEMatrices(np.array([[[1.0], [0.0]]], dtype=np.float32)))
    tokens = TokenEmbeddings.from_list([[[0.5, 1.0], [0.25, 2.0]]])
    assert encoder.encode_queries(tokens)[0].tolist() == [0, 0, 0.75, 3.0]
    assert encoder.encode_documents(tokens)[0].tolist() == [0.5, 1.0, 0.375, 1.5]


@pytest.mark.parametrize("kernel", KERNELS)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12), cut=st.integers(0, 12))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bits_do_not_depend_on_the_batch(
    kernel: str, monkeypatch: pytest.MonkeyPatch, lengths: list[int], cut: int
) -> None:
    monkeypatch.setenv("MUVERA_KERNEL", kernel)
    embeddings = ragged(7, lengths, dimension=128)
    encoder = FixedDimensionalEncoder(FDEConfig(final_projection_dimension=300))
    whole = encoder.encode_documents(embeddings)
    for encode in (encoder.encode_documents, encoder.encode_queries):
        whole = encode(embeddings)
        parts = [embeddings[i].copy() for i in range(len(embeddings))]
        for some, expected in ((parts[:cut], whole[:cut]), (parts[cut:], whole[cut:]), (parts[::-1], whole[::-1])):
            np.testing.assert_array_equal(encode(TokenEmbeddings.from_list(some, dimension=128)), expected)


def test_many_partitions_and_long_documents_are_worked_on_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUVERA_KERNEL", "numpy")
    embeddings = ragged(3, [50, 7])
    encoder = FixedDimensionalEncoder(SMALL)
    expected = encoder.encode_documents(embeddings)
    monkeypatch.setattr("muvera_core.set_encoders.fde_numpy._MEMBERSHIP_ELEMENTS", 1)
    np.testing.assert_array_equal(encoder.encode_documents(embeddings), expected)


@pytest.mark.parametrize("projection", ["dense", "count_sketch"])
@pytest.mark.parametrize("final", [None, 2048])
def test_inner_products_approximate_maxsim(projection: Literal["dense", "count_sketch"], final: int | None) -> None:
    rng = np.random.default_rng(0)
    query = unit_rows(rng, 16, 64)
    # Documents that hold noisy copies of 0, 1, 2, … of the query's tokens have ever higher MaxSim.
    documents = []
    for n_shared in range(17):
        tokens = unit_rows(rng, 40, 64)
        tokens[:n_shared] = query[:n_shared] + 0.03 * rng.standard_normal((n_shared, 64))
        documents.append(tokens / np.linalg.norm(tokens, axis=1, keepdims=True))
    embeddings = TokenEmbeddings.from_list(documents)
    config = FDEConfig(
        dimension=64,
        num_repetitions=40,
        projection=projection,
        final_projection_dimension=final,
    )
    encoder = FixedDimensionalEncoder(config)
    scores = encoder.encode_documents(embeddings) @ encoder.encode_queries(TokenEmbeddings.from_list([query]))[0]
    exact = maxsim(query, embeddings)
    assert np.corrcoef(scores, exact)[0, 1] > (0.97 if final is None else 0.93)


def test_unit_length_leaves_zeros_as_they_are() -> None:
    vectors = unit_length(np.array([[3, 4], [0, 0]], np.float32))
    np.testing.assert_allclose(vectors, np.array([[0.6, 0.8], [0, 0]]), rtol=1e-6)
    assert vectors.dtype == np.float32


def test_the_seed_decides_the_matrices() -> None:
    embeddings = ragged(0, [5])
    again = FixedDimensionalEncoder(SMALL).encode_documents(embeddings)
    np.testing.assert_array_equal(FixedDimensionalEncoder(SMALL).encode_documents(embeddings), again)
    other = FixedDimensionalEncoder(replace(SMALL, seed=1))
    assert not np.array_equal(other.encode_documents(embeddings), again)
    assert other.fingerprint != FixedDimensionalEncoder(SMALL).fingerprint


def test_projections_have_the_documented_form() -> None:
    dense = FDEMatrices.draw(SMALL).projection
    sketch = FDEMatrices.draw(replace(SMALL, projection="count_sketch")).projection
    assert dense is not None
    assert sketch is not None
    np.testing.assert_allclose(np.abs(dense), 1 / np.sqrt(4))
    assert (np.abs(sketch).sum(axis=2) == 1).all()
    assert set(np.unique(sketch)) == {-1, 0, 1}


def test_centring_subtracts_the_mean_before_encoding() -> None:
    embeddings = ragged(0, [5, 9])
    mean = np.linspace(-1, 1, 8, dtype=np.float32)
    shifted = TokenEmbeddings(embeddings.vectors + mean, embeddings.offsets)
    centred = FixedDimensionalEncoder(replace(SMALL, center=True), mean=mean)
    plain = FixedDimensionalEncoder(SMALL)
    np.testing.assert_allclose(centred.encode_documents(shifted), plain.encode_documents(embeddings), atol=1e-5)
    np.testing.assert_allclose(centred.encode_queries(shifted), plain.encode_queries(embeddings), atol=1e-5)


@pytest.mark.parametrize(
    ("config", "mean"), [(SMALL, np.zeros(8)), (replace(SMALL, center=True), None), (replace(SMALL, center=True), [0])]
)
def test_a_mean_goes_with_centring_only(config: FDEConfig, mean: np.ndarray | None) -> None:
    with pytest.raises(InvalidInputError, match="mean"):
        FixedDimensionalEncoder(config, mean=mean)


def test_output_dimension_is_that_of_the_encodings() -> None:
    for config in (SMALL, replace(SMALL, projection_dimension=None), replace(SMALL, final_projection_dimension=10)):
        encoder = FixedDimensionalEncoder(config)
        assert encoder.encode_documents(ragged(0, [2])).shape == (1, encoder.output_dimension)
    assert FixedDimensionalEncoder(SMALL).encode_queries(TokenEmbeddings.from_list([], 8)).shape == (0, 96)


def test_another_width_is_refused() -> None:
    with pytest.raises(DimensionMismatchError, match="got 9-d token vectors, but this encoder works with 8-d"):
        FixedDimensionalEncoder(SMALL).encode_queries(ragged(0, [2], dimension=9))


@pytest.mark.parametrize(
    "settings",
    [
        {"dimension": 0},
        {"num_repetitions": 0},
        {"num_repetitions": 1.5},
        {"num_repetitions": True},
        {"num_simhash_projections": -1},
        {"num_simhash_projections": 30},
        {"projection_dimension": 0},
        {"final_projection_dimension": 0},
        {"projection": "sparse"},
        {"seed": -1},
        {"num_simhash_projections": 20},
    ],
    ids=str,
)
def test_unusable_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(settings))):
        FDEConfig(**settings)


@pytest.mark.parametrize(("dimension", "width"), [(1, 2560), (48, 2496), (96, 2304), (128, 2560), (768, 2560)])
def test_encodings_of_tokens_of_any_width_are_about_as_wide(dimension: int, width: int) -> None:
    config = FDEConfig.for_dimension(dimension)
    assert (config.dimension, config.output_dimension) == (dimension, width)
    assert (config == FDEConfig()) == (dimension == 128)
    tokens = np.eye(3, dimension, dtype=np.float32)
    encoded = FixedDimensionalEncoder(config).encode_queries(TokenEmbeddings.from_list([tokens]))
    assert encoded.shape == (1, width)
    assert np.isfinite(encoded).all()


@pytest.mark.parametrize("dimension", [0, -1, True, 128.0, "128", None, 1 << 30])
def test_tokens_of_no_width_are_refused(dimension: Any) -> None:
    with pytest.raises(InvalidInputError, match="dimension"):
        FDEConfig.for_dimension(dimension)


def test_matrices_of_another_shape_are_refused() -> None:
    drawn = FDEMatrices.draw(SMALL)
    with pytest.raises(InvalidInputError, match="simhash has shape"):
        FixedDimensionalEncoder(replace(SMALL, num_repetitions=2), matrices=drawn)
    with pytest.raises(InvalidInputError, match="projection has shape None"):
        FixedDimensionalEncoder(SMALL, matrices=FDEMatrices(drawn.simhash))
    sketch = FDEMatrices(drawn.simhash, drawn.projection, np.full(96, 12), np.ones(96, np.float32))
    with pytest.raises(InvalidInputError, match="sketch_index must lie in"):
        FixedDimensionalEncoder(replace(SMALL, final_projection_dimension=12), matrices=sketch)

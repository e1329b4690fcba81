"""The compiled FDE kernels encode as NumPy does."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from muvera_core import FDEConfig, FixedDimensionalEncoder, TokenEmbeddings
from muvera_core.errors import InvalidInputError
from muvera_core.set_encoders.fde_matrices import FDEMatrices
from muvera_core.token_embeddings import FloatArray

kernels = pytest.importorskip("muvera_kernels")
NAMES: list[str] = kernels.available_kernels()
PUBLISHED = FDEConfig(
    num_repetitions=20, num_simhash_projections=5, projection_dimension=16, fill_empty_partitions=True
)


def exact(encoder: FixedDimensionalEncoder) -> FixedDimensionalEncoder:
    """The encoder with hyperplanes of eighths. Their products with tokens of sixteenths are exact in any order."""
    drawn = encoder.matrices
    simhash = (np.clip(drawn.simhash * 8, -32, 32).round() / 8).astype(np.float32)
    matrices = FDEMatrices(simhash, drawn.projection, drawn.sketch_index, drawn.sketch_sign)
    return FixedDimensionalEncoder(encoder.config, matrices=matrices, mean=encoder.mean)


def token_sets(seed: int, lengths: list[int], dimension: int) -> TokenEmbeddings:
    """Tokens of sixteenths, some of them zero and some equal, so that many products are exactly zero."""
    rng = np.random.default_rng(seed)
    vectors = ((rng.standard_normal((sum(lengths), dimension)) * 4).round() / 16).astype(np.float32)
    vectors[rng.random(len(vectors)) < 0.1] = 0
    vectors[rng.random(len(vectors)) < 0.1] = vectors[0]
    return TokenEmbeddings(vectors, np.cumsum([0, *lengths]))


def encode(
    encoder: FixedDimensionalEncoder, tokens: TokenEmbeddings, kernel: str, n_threads: int = 1
) -> tuple[FloatArray, FloatArray]:
    """The encodings as documents and as queries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUVERA_KERNEL", kernel)
        patch.setenv("OMP_NUM_THREADS", str(n_threads))
        return encoder.encode_documents(tokens), encoder.encode_queries(tokens)


@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    dimension=st.integers(1, 200),
    repetitions=st.integers(1, 30),
    k=st.integers(0, 6),
    projected=st.none() | st.integers(1, 80),
    projection=st.sampled_from(["dense", "count_sketch"]),
    final=st.none() | st.integers(1, 500),
    fill=st.booleans(),
    center=st.booleans(),
    seed=st.integers(0, 1000),
)
@example([32, 1], 128, 5, 2, None, "dense", None, False, False, 0)
@example([120, 7], 128, 20, 5, 16, "dense", 2048, True, True, 1)
@example([300], 768, 5, 2, 128, "count_sketch", None, True, False, 2)
@example([40], 3, 7, 12, None, "dense", None, True, False, 3)
@example([1], 1, 640, 2, None, "dense", None, True, False, 4)
@settings(max_examples=120, deadline=None)
def test_every_kernel_encodes_as_numpy_does(
    lengths: list[int],
    dimension: int,
    repetitions: int,
    k: int,
    projected: int | None,
    projection: Literal["dense", "count_sketch"],
    final: int | None,
    fill: bool,
    center: bool,
    seed: int,
) -> None:
    config = FDEConfig(dimension, repetitions, k, projected, final, projection, fill, center, seed)
    mean = (np.arange(dimension) % 5 / 16).astype(np.float32) if center else None
    encoder = exact(FixedDimensionalEncoder(config, mean=mean))
    tokens = token_sets(seed, lengths, dimension)
    expected = encode(encoder, tokens, "numpy")
    for name in NAMES:
        for got, wanted in zip(encode(encoder, tokens, name), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * max(1, np.abs(wanted).max()), err_msg=name)


@pytest.mark.parametrize("kernel", NAMES)
@pytest.mark.parametrize("final", [None, 2048], ids=["whole", "sketched"])
def test_a_document_of_ten_thousand_tokens_is_encoded(kernel: str, final: int | None) -> None:
    encoder = exact(FixedDimensionalEncoder(replace(PUBLISHED, final_projection_dimension=final)))
    tokens = token_sets(0, [10_000, 1, 3], 128)
    for got, wanted in zip(encode(encoder, tokens, kernel), encode(encoder, tokens, "numpy"), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("kernel", NAMES)
def test_bits_depend_on_the_text_only(kernel: str) -> None:
    lengths = [int(n) for n in np.random.default_rng(1).integers(1, 200, size=150)]
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((sum(lengths), 128)).astype(np.float32)
    tokens = TokenEmbeddings(vectors, np.cumsum([0, *lengths]))
    encoder = FixedDimensionalEncoder(PUBLISHED)
    alone = [encode(encoder, TokenEmbeddings.from_list([text.copy()]), kernel) for text in tokens]
    for n_threads in (1, 2, 3):
        documents, queries = encode(encoder, tokens, kernel, n_threads)
        np.testing.assert_array_equal(documents, np.concatenate([pair[0] for pair in alone]))
        np.testing.assert_array_equal(queries, np.concatenate([pair[1] for pair in alone]))


def test_kernels_with_fused_sums_agree_on_all_sides() -> None:
    names = [name for name in NAMES if name != "portable"]
    tokens = np.random.default_rng(3).standard_normal((5000, 128)).astype(np.float32)
    each = TokenEmbeddings(tokens, np.arange(len(tokens) + 1))
    encoder = FixedDimensionalEncoder(FDEConfig())
    filled = [encode(encoder, each, name)[1] != 0 for name in names]
    assert all(np.array_equal(filled[0], other) for other in filled)


def test_an_encoder_can_be_used_by_many_threads_at_once() -> None:
    tokens = token_sets(4, [50] * 40, 128)
    encoder = FixedDimensionalEncoder(PUBLISHED)
    expected = FixedDimensionalEncoder(PUBLISHED).encode_documents(tokens)
    results: list[FloatArray] = []
    threads = [threading.Thread(target=lambda: results.append(encoder.encode_documents(tokens))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == len(threads)
    for result in results:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_process_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    tokens = token_sets(5, [100] * 200, 128)
    encoder = FixedDimensionalEncoder(PUBLISHED)
    expected = encoder.encode_documents(tokens)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(encoder.encode_documents(tokens)))
    child.start()
    got = queue.get()
    child.join()
    np.testing.assert_array_equal(got, expected)


def test_an_encoder_that_has_encoded_can_be_pickled() -> None:
    tokens = token_sets(6, [10], 128)
    encoder = FixedDimensionalEncoder(PUBLISHED)
    expected = encoder.encode_documents(tokens)
    copy: FixedDimensionalEncoder = pickle.loads(pickle.dumps(encoder))  # noqa: S301
    np.testing.assert_array_equal(copy.encode_documents(tokens), expected)
    assert copy.fingerprint == encoder.fingerprint


def test_an_unknown_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUVERA_KERNEL", "sse9")
    with pytest.raises(InvalidInputError, match=r"MUVERA_KERNEL must be one of .*numpy.* got 'sse9'"):
        FixedDimensionalEncoder(PUBLISHED).encode_documents(token_sets(7, [3], 128))

"""Each compiled kernel that this machine can run, and NumPy in their place, against MaxSim in float64."""

from __future__ import annotations

import os
import tempfile
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from muvera_core import FDEConfig, MuveraIndex
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import CorruptIndexError, InvalidInputError
from muvera_core.maxsim import RowLayout, compiled, maxsim_of_many, maxsim_scaled, row_checksums, score_documents
from muvera_core.maxsim.layout import RowPrecision, unpack
from muvera_core.native import NUMPY, available_kernels, kernel_name
from muvera_core.storage.token_codec import TokenCodec

WIDTHS = (1, 2, 3, 5, 8, 16, 31, 64, 96, 128, 200, 256, 384, 768, 1024)
COUNTS = (1, 2, 3, 16, 17, 100)
MOST_TOKENS = 2048
QUERY_TOKENS = (1, 5, 32, 41)
PRECISIONS: tuple[RowPrecision, ...] = ("int8", "float16", "float32", "8bit", "4bit", "2bit")
N_LEVELS = {"8bit": 256, "4bit": 16, "2bit": 4}


class Stored(NamedTuple):
    """Documents in bytes.

    Attributes:
        data: the bytes, uint8.
        first: number of each document's first row, int64.
        n_rows: number of its rows, int64.
        layout: the bytes of a row.
    """

    data: npt.NDArray[np.uint8]
    first: npt.NDArray[np.int64]
    n_rows: npt.NDArray[np.int64]
    layout: RowLayout

    def vectors(self, i: int, *, coarse: bool = False) -> npt.NDArray[np.float64]:
        """The vectors of a document, as NumPy reads them."""
        start, n = int(self.first[i]) * self.layout.row_bytes, int(self.n_rows[i])
        size = n * (self.layout.lead_bytes if coarse else self.layout.row_bytes)
        codes, scales = unpack(self.data[start : start + size], n, self.layout, coarse=coarse)
        return codes.astype(np.float64) * (1 if scales is None else scales.astype(np.float64)[:, None])


def stored(precision: RowPrecision, dimension: int, counts: tuple[int, ...], magnitude: float = 1.0) -> Stored:
    """Documents of random bytes."""
    rng = np.random.default_rng(dimension)
    if precision in N_LEVELS:
        levels = rng.integers(-128, 128, 256, dtype=np.int8)
        layout = RowLayout(precision, dimension, levels[: N_LEVELS[precision]], levels[100:104])
    else:
        layout = RowLayout(precision, dimension)
    parts = [document(rng, layout, n, magnitude) for n in counts]
    count = np.array(counts, dtype=np.int64)
    return Stored(np.concatenate(parts), np.cumsum(count) - count, count, layout)


def document(rng: np.random.Generator, layout: RowLayout, n: int, magnitude: float) -> npt.NDArray[np.uint8]:
    scales = rng.random(n, dtype=np.float32) * magnitude
    scales[n // 2] = 0  # a row of zeros
    if layout.is_sliced:
        bits = rng.integers(0, 256, n * (layout.row_bytes - 2), dtype=np.uint8)
        return np.concatenate([scales.astype("<f2").view(np.uint8), bits])
    if layout.precision != "int8":
        numbers = rng.standard_normal((n, layout.dimension)) * scales[:, None]
        return numbers.astype("<f2" if layout.precision == "float16" else "<f4").reshape(-1).view(np.uint8)
    rows = np.empty(n, dtype=TokenCodec("int8", layout.dimension).row_dtype)
    rows["scale"], rows["codes"] = scales, rng.integers(-128, 128, (n, layout.dimension))
    return rows.view(np.uint8)


def some_queries(dimension: int, magnitude: float = 1.0) -> list[npt.NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    queries = [(rng.standard_normal((n, dimension)) * magnitude).astype(np.float32) for n in QUERY_TOKENS]
    queries[1][2] = 0
    return queries


def assert_within_rounding(
    scores: npt.NDArray[np.float32], documents: Stored, queries: list[npt.NDArray[np.float32]], *, coarse: bool = False
) -> None:
    """The bound that ``compiled`` states, with 1e-6 of the largest possible product for rounding in float32."""
    for i in range(len(documents.n_rows)):
        vectors = documents.vectors(i, coarse=coarse)
        largest = np.abs(vectors).sum(axis=1).max()
        for query, score in zip(queries, scores[:, i].tolist(), strict=True):
            expected = (query.astype(np.float64) @ vectors.T).max(axis=1).sum()
            peaks = np.abs(query).max(axis=1).astype(np.float64)
            steps = peaks / compiled.most_code(documents.layout.dimension, coarse=coarse)
            rounding = 0.0 if documents.layout.precision in ("float16", "float32") else 0.5
            assert abs(score - expected) <= (rounding * steps + 1e-6 * peaks).sum() * largest + 1e-45


@pytest.fixture(params=available_kernels())
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MUVERA_KERNEL", request.param)
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture
def file() -> Iterator[Any]:
    with tempfile.TemporaryFile() as opened:
        yield opened


@pytest.mark.parametrize("precision", PRECISIONS)
def test_scores_are_those_of_the_rows_within_the_querys_rounding(kernel: str, precision: RowPrecision) -> None:
    for dimension in WIDTHS:
        documents, queries = stored(precision, dimension, COUNTS), some_queries(dimension)
        assert_within_rounding(score_documents(*documents[:4], queries), documents, queries)


@pytest.mark.parametrize("precision", ["8bit", "4bit", "2bit"])
def test_leading_bits_can_be_read_alone(kernel: str, precision: RowPrecision) -> None:
    for dimension in WIDTHS:
        documents, queries = stored(precision, dimension, COUNTS), some_queries(dimension)
        assert_within_rounding(score_documents(*documents[:4], queries, coarse=True), documents, queries, coarse=True)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dimension", [1, 128, 1024])
def test_long_documents_are_scored(kernel: str, precision: RowPrecision, dimension: int) -> None:
    documents, queries = stored(precision, dimension, (2, MOST_TOKENS, 1)), some_queries(dimension)[:2]
    assert_within_rounding(score_documents(*documents[:4], queries), documents, queries)


@pytest.mark.parametrize("precision", ["int8", "float32"])
@pytest.mark.parametrize("magnitude", [2.0**40, 1e-20, 1e-40], ids=["huge", "tiny", "subnormal"])
def test_extreme_magnitudes_are_scored(kernel: str, precision: RowPrecision, magnitude: float) -> None:
    for of_rows, of_queries in [(magnitude, 1.0), (1.0, magnitude)] + [(magnitude, magnitude)] * (magnitude > 1):
        documents, queries = stored(precision, 96, COUNTS, of_rows), some_queries(96, of_queries)
        assert_within_rounding(score_documents(*documents[:4], queries), documents, queries)


@pytest.mark.parametrize("precision", ["int8", "8bit", "4bit", "2bit"])
def test_all_kernels_give_the_same_scores_of_codes(precision: RowPrecision, monkeypatch: pytest.MonkeyPatch) -> None:
    for dimension in (1, 31, 128, 768):
        found = []
        documents, queries = stored(precision, dimension, COUNTS), some_queries(dimension)
        for name in available_kernels():
            if name != NUMPY:
                monkeypatch.setenv("MUVERA_KERNEL", name)
                found.append(score_documents(*documents[:4], queries))
        for scores in found[1:]:
            np.testing.assert_array_equal(scores, found[0])


@pytest.mark.parametrize("precision", ["int8", "float32", "8bit"])
def test_files_threads_and_company_change_no_score(kernel: str, precision: RowPrecision, file: Any) -> None:
    # Enough documents that every kernel finds three threads worthwhile, not all of them neighbours.
    documents, queries = stored(precision, 64, tuple(range(1, 60)) * 26), some_queries(64)
    file.write(documents.data)
    file.flush()
    order = np.random.default_rng(0).permutation(len(documents.n_rows))
    together = score_documents(*documents[:4], queries)
    for n_threads in (1, 2, 3):
        shuffled = score_documents(
            file.fileno(), documents.first[order], documents.n_rows[order], documents.layout, queries, n_threads
        )
        if kernel == NUMPY:  # sums in an order of its own
            np.testing.assert_allclose(shuffled, together[:, order], rtol=1e-5, atol=1e-4)
        else:
            np.testing.assert_array_equal(shuffled, together[:, order])
    for query, scores in zip(queries, together, strict=True):
        alone = score_documents(*documents[:4], [query])[0]
        np.testing.assert_allclose(alone, scores, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("coarse", [False, True])
def test_rows_beyond_the_end_are_refused(kernel: str, file: Any, coarse: bool) -> None:
    documents = stored("4bit", 20, COUNTS)
    size = documents.layout.lead_bytes if coarse else documents.layout.row_bytes
    short = documents.data[: documents.first[-1] * documents.layout.row_bytes + COUNTS[-1] * size - 1]
    file.write(short)
    file.flush()
    for source in (short, file.fileno()):
        with pytest.raises(EOFError):
            score_documents(source, *documents[1:4], some_queries(20), 2, coarse=coarse)
        with pytest.raises(EOFError):
            row_checksums(source, documents.first, documents.n_rows, documents.layout.row_bytes)


def test_a_file_that_cannot_be_read_raises_the_systems_error(kernel: str, tmp_path: Path) -> None:
    documents = stored("int8", 20, COUNTS)
    descriptor = os.open(tmp_path / "a", os.O_CREAT | os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            score_documents(descriptor, *documents[1:4], some_queries(20))
    finally:
        os.close(descriptor)


def test_checksums_are_those_of_zlib(kernel: str, file: Any) -> None:
    data = np.random.default_rng(0).integers(0, 256, 70_000, dtype=np.uint8)
    file.write(data)
    file.flush()
    first = np.arange(300, dtype=np.int64)
    count = np.r_[np.arange(297), 4096, 65_536, 60_001]
    expected = [zlib.crc32(data[a : a + n].tobytes()) for a, n in zip(first, count, strict=True)]
    for source in (data, file.fileno()):
        assert row_checksums(source, first, count, 1).tolist() == expected
    assert row_checksums(data, first[:100], count[:100], 132).tolist() == [
        zlib.crc32(data[132 * a : 132 * (a + n)].tobytes()) for a, n in zip(first[:100], count[:100], strict=True)
    ]


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_rows_are_read_where_they_lie_in_arrays(kernel: str, precision: Any) -> None:
    rng = np.random.default_rng(0)
    codec = TokenCodec(precision, 24)
    offsets = np.array([0, 3, 20, 21])
    rows = codec.encode(rng.standard_normal((21, 24)).astype(np.float32), offsets)
    codes, scales = codec.split(rows, offsets)
    layout = Stored(rows.view(np.uint8), offsets[:-1], np.diff(offsets), codec.layout)
    queries = some_queries(24)
    together = maxsim_of_many(queries, codes, scales, offsets)
    assert_within_rounding(together, layout, queries)
    for query, scores in zip(queries, together, strict=True):
        np.testing.assert_allclose(maxsim_scaled(query, codes, scales, offsets), scores, rtol=1e-5, atol=1e-5)
    every_other = np.array([0, 2, 10])
    there = None if scales is None else scales[1:][::2]
    copied = None if there is None else there.copy()
    np.testing.assert_array_equal(
        maxsim_scaled(queries[2], codes[1:][::2], there, every_other),
        maxsim_scaled(queries[2], codes[1:][::2].copy(), copied, every_other),
    )


def test_any_number_of_threads_may_score(kernel: str) -> None:
    documents, queries = stored("int8", 64, COUNTS * 5), some_queries(64)
    expected, found = score_documents(*documents[:4], queries), dict[int, npt.NDArray[np.float32]]()

    def score(i: int) -> None:
        found[i] = score_documents(*documents[:4], queries, 2)

    threads = [threading.Thread(target=score, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(6):
        np.testing.assert_array_equal(found[i], expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_scores_too(kernel: str) -> None:
    documents, queries = stored("int8", 64, COUNTS * 50), some_queries(64)
    expected = score_documents(*documents[:4], queries, 2)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(score_documents(*documents[:4], queries, 2), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_fastest_kernel_is_chosen_unless_the_environment_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUVERA_KERNEL", raising=False)
    assert kernel_name() == available_kernels()[0]
    monkeypatch.setenv("MUVERA_KERNEL", "numpy")
    assert kernel_name() == "numpy"
    monkeypatch.setenv("MUVERA_KERNEL", "abacus")
    with pytest.raises(InvalidInputError, match=r"MUVERA_KERNEL must be one of .*numpy.*, got 'abacus'"):
        kernel_name()


def test_a_search_notices_a_token_file_that_was_cut_short_or_altered(kernel: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cut", "altered"):
        with MuveraIndex.create(tmp_path / name, PrecomputedEmbeddings(16, "random"), FDEConfig(dimension=16)) as index:
            index.add_embeddings([rng.standard_normal((9, 16)).astype(np.float32) for _ in range(30)])
        (tokens,) = (tmp_path / name).glob("tokens-*.bin")
        with MuveraIndex.open(tmp_path / name, PrecomputedEmbeddings(16, "random")) as index:
            content = bytearray(tokens.read_bytes())
            content[100] ^= 1
            tokens.write_bytes(content[:-1] if name == "cut" else content)
            with pytest.raises(CorruptIndexError, match="ends before the rows" if name == "cut" else "are damaged"):
                index.search_embeddings(rng.standard_normal((3, 16)).astype(np.float32), exact=True)

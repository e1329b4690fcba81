"""Indexes whose tokens are stored in slices of bits, and rewriting them with fewer bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera_core import FDEConfig, MuveraIndex, StageClock, check_index, repair_index
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import (
    CorruptIndexError,
    InvalidInputError,
    NothingToOptimizeWarning,
    ReadOnlyIndexError,
    StorageError,
)
from muvera_core.maintenance import read_info
from muvera_core.storage import change, store
from muvera_core.storage.manifest import Manifest
from muvera_core.storage.token_codec import PRECISIONS, TokenCodec, TokenPrecision
from muvera_core.storage.token_log import FileTokenLog
from muvera_core.tuning.optimizing import narrow_tokens
from muvera_core.tuning.token_bytes import precision_for

D = 32
ENCODER = PrecomputedEmbeddings(D, "random")
FDE = FDEConfig(dimension=D, num_repetitions=4, num_simhash_projections=2)
SLICED: tuple[TokenPrecision, ...] = ("8bit", "4bit", "2bit")


def tokens(seed: int, n: int) -> list[np.ndarray]:
    """Token vectors of texts of 1 to 11 tokens, of unit length."""
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((rng.integers(1, 12), D)).astype(np.float32) for _ in range(n)]
    return [array / np.linalg.norm(array, axis=1, keepdims=True) for array in arrays]


def filled(path: Path | None, n: int = 60, precision: TokenPrecision = "8bit") -> MuveraIndex:
    index = MuveraIndex.create(path, ENCODER, FDE, token_precision=precision)
    index.add_embeddings(tokens(0, n), ids=[f"d{i}" for i in range(n)], texts=[f"text {i}" for i in range(n)])
    return index


def narrow(index: MuveraIndex, max_bytes: int) -> None:
    narrow_tokens(index.engine.collection, index.engine.writer, max_bytes)


def own_document_found(index: MuveraIndex, n: int = 60) -> bool:
    """Whether each document is the best hit for its own tokens, by exact MaxSim."""
    return all(
        index.search_embeddings(own, k=1, exact=True)[0].id == f"d{i}"
        for i, own in enumerate(tokens(0, n))
        if len(own) > 3
    )


def precision_of(index: MuveraIndex) -> str:
    return index.token_precision


# Searching


@pytest.mark.parametrize("precision", SLICED)
def test_the_shortlist_keeps_what_exact_maxsim_finds(precision: TokenPrecision) -> None:
    with filled(None, 400, precision) as index:
        for i, query in enumerate(tokens(0, 60)):
            noisy = query + 0.05 * tokens(5, 1)[0][0]
            found = index.search_embeddings(noisy, k=3, n_candidates=399)
            exact = index.search_embeddings(noisy, k=3, exact=True)
            if len(query) > 3:
                assert found[0].id == f"d{i}"
                assert found[0].score == pytest.approx(exact[0].score, rel=1e-5)


def test_the_scores_of_hits_are_those_of_all_bits() -> None:
    with filled(None, 400) as index:
        query = tokens(9, 1)[0]
        scores = {hit.id: hit.score for hit in index.search_embeddings(query, k=400, exact=True)}
        for hit in index.search_embeddings(query, k=20, n_candidates=399):
            assert hit.score == pytest.approx(scores[hit.id], rel=1e-5)


def test_a_plan_says_how_many_candidates_are_reranked_by_all_bits() -> None:
    with filled(None, 400) as index:
        assert index.plan(k=10, n_candidates=300).n_shortlisted == 50
        assert index.plan(k=40, n_candidates=300).n_shortlisted == 120
        assert index.plan(k=10, n_candidates=99).n_shortlisted is None
        assert index.plan(k=10, exact=True).n_shortlisted is None
    with filled(None, 400, "int8") as index:
        assert index.plan(k=10, n_candidates=300).n_shortlisted is None


def test_short_vectors_have_no_shortlist() -> None:
    with MuveraIndex.create(None, PrecomputedEmbeddings(8, "short"), token_precision="8bit") as index:
        index.add_embeddings([row[None] for row in np.random.default_rng(0).standard_normal((300, 8))])
        assert index.plan(n_candidates=250).n_shortlisted is None


@pytest.mark.parametrize("precision", PRECISIONS)
def test_equal_documents_are_found_in_the_order_of_their_addition(precision: TokenPrecision) -> None:
    with MuveraIndex.create(None, ENCODER, token_precision=precision) as index:
        index.add_embeddings([tokens(0, 1)[0]] * 300, ids=[f"d{i}" for i in range(300)])
        found = [hit.id for hit in index.search_embeddings(tokens(1, 1)[0], 5)]
        assert found == ["d0", "d1", "d2", "d3", "d4"]


def test_the_clock_times_the_shortlist() -> None:
    clock = StageClock()
    with filled(None, 300) as index:
        index.search_embeddings(tokens(9, 1)[0], k=5, n_candidates=200, clock=clock)
    assert list(clock.seconds) == ["candidates", "shortlist", "rerank", "fetch"]


def test_queries_together_find_what_each_finds_alone() -> None:
    with filled(None, 300) as index:
        queries = tokens(9, 7)
        together = index.search_embeddings_batch(queries, k=5, n_candidates=200)
        alone = [index.search_embeddings(query, k=5, n_candidates=200) for query in queries]
    assert [[hit.id for hit in hits] for hits in together] == [[hit.id for hit in hits] for hits in alone]


# Keeping


@pytest.mark.parametrize("precision", SLICED)
def test_an_index_survives_deletion_compaction_copying_and_reopening(tmp_path: Path, precision: TokenPrecision) -> None:
    size = TokenCodec(precision, D).row_dtype.itemsize
    with filled(tmp_path / "a", precision=precision) as index:
        kept = index.get_embeddings([f"d{i}" for i in range(20, 60)])
        index.delete([f"d{i}" for i in range(20)])
        index.compact()
        index.copy_to(tmp_path / "b")
        assert (tmp_path / "a" / "tokens-1.bin").stat().st_size == index.n_tokens * size
    for name in "ab":
        with MuveraIndex.open(tmp_path / name, ENCODER, read_only=True) as index:
            assert index.token_precision == precision
            for id, vectors in index.get_embeddings(list(kept)).items():
                np.testing.assert_array_equal(vectors, kept[id])
        assert check_index(tmp_path / name).ok


@pytest.mark.parametrize("precision", SLICED)
@pytest.mark.parametrize("place", ["a scale", "leading bits", "the last bits"])
def test_damage_of_any_slice_is_found(tmp_path: Path, precision: TokenPrecision, place: str) -> None:
    n = len(tokens(0, 1)[0])
    codec = TokenCodec(precision, D)
    byte = {"a scale": 1, "leading bits": 2 * n + 3, "the last bits": n * codec.row_dtype.itemsize - 1}[place]
    filled(tmp_path / "a", precision=precision).close()
    path = tmp_path / "a" / "tokens-0.bin"
    content = bytearray(path.read_bytes())
    content[byte] ^= 4
    path.write_bytes(content)
    assert not check_index(tmp_path / "a").ok
    with MuveraIndex.open(tmp_path / "a", ENCODER, read_only=True) as index:
        with pytest.raises(CorruptIndexError, match="the tokens of document 'd0' are damaged"):
            index.search_embeddings(tokens(0, 1)[0], k=1, n_candidates=59)
        with pytest.raises(CorruptIndexError, match="the tokens of document 'd0' are damaged"):
            index.search_embeddings(tokens(0, 1)[0], k=1, exact=True)
    report = repair_index(tmp_path / "a", ENCODER)
    assert (report.n_documents, report.lost) == (59, ("d0",))
    with MuveraIndex.open(tmp_path / "a", ENCODER) as index:
        assert "d1" in index
        assert index.token_precision == precision


# Rewriting with fewer bits


@pytest.mark.parametrize(
    ("present", "max_bytes", "expected"),
    [
        ("int8", 132, "int8"),
        ("int8", 131, "8bit"),
        ("int8", 66, "4bit"),
        ("float16", 200, "8bit"),
        ("8bit", 129, "4bit"),
        ("8bit", 34, "2bit"),
        ("4bit", 1000, "4bit"),
        ("2bit", 34, "2bit"),
    ],
)
def test_the_best_precision_that_fits_is_taken_and_never_a_wider_one(
    present: TokenPrecision, max_bytes: int, expected: TokenPrecision
) -> None:
    assert precision_for(TokenCodec(present, 128), max_bytes) == expected


def test_too_few_bytes_are_refused_with_the_smallest_possible(tmp_path: Path) -> None:
    with filled(tmp_path / "a") as index:
        with pytest.raises(
            InvalidInputError, match=r"at least 10 .*34 for '8bit', 18 for '4bit', 10 for '2bit'.*got 9"
        ):
            index.optimize(k=2, max_bytes_per_token=9)
        assert index.token_precision == "8bit"
    with MuveraIndex.open(tmp_path / "a", ENCODER, read_only=True) as reader, pytest.raises(ReadOnlyIndexError):
        reader.optimize(k=2, max_bytes_per_token=18)


def test_optimize_rewrites_the_tokens_and_reports_their_bytes(tmp_path: Path) -> None:
    with filled(tmp_path / "a", precision="int8") as index:
        before = (tmp_path / "a" / "tokens-0.bin").stat().st_size
        with pytest.warns(NothingToOptimizeWarning, match="leaves stage one as it is"):
            tuning = index.optimize(k=2, max_bytes_per_token=20)
        assert (tuning.measured["bytes_per_token"], tuning.measured["bytes_per_token_before"]) == (18, 36)
        assert index.token_precision == "4bit"
        assert own_document_found(index)
        index.add_embeddings(tokens(4, 3), ids=["x", "y", "z"])
        assert index.search_embeddings(tokens(4, 1)[0], k=1, exact=True)[0].id == "x"
    assert (tmp_path / "a" / "tokens-1.bin").stat().st_size < before * 0.6
    assert not (tmp_path / "a" / "tokens-0.bin").exists()
    assert check_index(tmp_path / "a").ok
    assert read_info(tmp_path / "a").manifest.token_precision == "4bit"
    with MuveraIndex.open(tmp_path / "a", ENCODER, read_only=True) as index:
        assert own_document_found(index)


def test_a_narrowed_index_opens_with_its_former_precision(tmp_path: Path) -> None:
    with filled(tmp_path / "a", precision="int8") as index:
        narrow(index, 18)
    for before in ("float16", "int8", "8bit", "4bit"):
        with MuveraIndex.open_or_create(tmp_path / "a", ENCODER, token_precision=before) as index:
            assert index.token_precision == "4bit"
    with pytest.raises(InvalidInputError, match="made with token_precision='4bit'"):
        MuveraIndex.open_or_create(tmp_path / "a", ENCODER, token_precision="2bit")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_index_in_memory_can_be_narrowed(precision: TokenPrecision) -> None:
    with filled(None, precision=precision) as index:
        narrow(index, 18)
        assert index.token_precision == ("2bit" if precision == "2bit" else "4bit")
        assert own_document_found(index)


def test_a_search_that_began_before_reads_the_tokens_of_its_snapshot(tmp_path: Path) -> None:
    with filled(tmp_path / "a", precision="int8") as index:
        snapshot, keys = index.engine.collection.snapshot(), index.engine.collection.snapshot().keys
        before = index.engine.collection.store.embeddings(snapshot, keys).vectors
        narrow(index, 10)
        np.testing.assert_array_equal(index.engine.collection.store.embeddings(snapshot, keys).vectors, before)
        assert index.engine.collection.store.codec.precision == "2bit"


def test_an_open_reader_follows(tmp_path: Path) -> None:
    with (
        filled(tmp_path / "a", precision="int8") as index,
        MuveraIndex.open(tmp_path / "a", ENCODER, read_only=True, refresh_interval=None) as reader,
    ):
        narrow(index, 18)
        assert own_document_found(reader)  # of the file that it has open
        assert precision_of(reader) == "int8"
        assert reader.refresh()
        assert precision_of(reader) == "4bit"
        assert own_document_found(reader)
        narrow(index, 10)
        index.add_embeddings(tokens(4, 1), ids=["x"])
        reader.refresh()
        assert precision_of(reader) == "2bit"
        assert "x" in reader


class Interrupted(BaseException):
    """Stands for Ctrl-C."""


def interrupt(*_: Any, **__: Any) -> None:
    raise Interrupted


STEPS: dict[str, tuple[object, str, Callable[..., None]]] = {
    "while the new file is written": (FileTokenLog, "append", interrupt),
    "before the new file is durable": (FileTokenLog, "sync", interrupt),
    "before the change is prepared": (change.Change, "prepare", interrupt),
    "before the commit": (change.Change, "commit", interrupt),
    "before the old file is removed": (store, "follow_up", interrupt),
    "before the manifest is written": (Manifest, "write", interrupt),
}
COMMITTED = {"before the old file is removed", "before the manifest is written"}


@pytest.mark.parametrize("step", STEPS)
def test_an_interruption_leaves_the_old_tokens_or_the_new_ones(tmp_path: Path, step: str) -> None:
    target, name, call = STEPS[step]
    expected = "4bit" if step in COMMITTED else "int8"
    with filled(tmp_path / "a", precision="int8") as index:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(target, name, call)
            with suppress(Interrupted):
                narrow(index, 18)
        assert index.token_precision == expected
        assert own_document_found(index)
        index.add_embeddings(tokens(4, 1), ids=["x"])
        assert index.search_embeddings(tokens(4, 1)[0], k=1, exact=True)[0].id == "x"
    assert check_index(tmp_path / "a").ok
    with MuveraIndex.open(tmp_path / "a", ENCODER) as index:
        assert index.token_precision == expected
        assert own_document_found(index)
    assert Manifest.read(tmp_path / "a").token_precision == expected


KILLED = """
import os, sys
from muvera_core.storage import change, store
from muvera_core.storage.manifest import Manifest
from muvera_core.storage.token_log import FileTokenLog
from test_slices import ENCODER, STEPS, MuveraIndex, narrow
folder, step = sys.argv[1:]
target, name, _ = STEPS[step]
index = MuveraIndex.open(folder, ENCODER)
setattr(target, name, lambda *_, **__: os._exit(9))
narrow(index, 18)
"""


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_writer_leaves_the_old_tokens_or_the_new_ones(tmp_path: Path, step: str) -> None:
    filled(tmp_path / "a", precision="int8").close()
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "a"), step]
    assert subprocess.run(arguments, env=os.environ | {"PYTHONPATH": paths}, check=False).returncode == 9
    expected = "4bit" if step in COMMITTED else "int8"
    assert check_index(tmp_path / "a").ok
    assert read_info(tmp_path / "a").manifest.token_precision == expected
    for read_only in (True, False):  # reading does not need the manifest to be up to date
        with MuveraIndex.open(tmp_path / "a", ENCODER, read_only=read_only) as index:
            assert index.token_precision == expected
            assert own_document_found(index)
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["token_precision"] == expected
    assert len(list((tmp_path / "a").glob("tokens-*.bin"))) == 1


def test_a_damaged_document_stops_the_rewriting_and_nothing_changes(tmp_path: Path) -> None:
    filled(tmp_path / "a", precision="int8").close()
    path = tmp_path / "a" / "tokens-0.bin"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    with MuveraIndex.open(tmp_path / "a", ENCODER) as index:
        with pytest.raises(CorruptIndexError, match="damaged"):
            narrow(index, 18)
        assert index.token_precision == "int8"
        assert len(index) == 60


def test_a_full_disk_stops_the_rewriting_and_nothing_changes(tmp_path: Path) -> None:
    def no_room(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    with filled(tmp_path / "a", precision="int8") as index:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("muvera_core.storage.token_log.write_at", no_room)
            with pytest.raises(StorageError, match="no room"):
                narrow(index, 18)
        assert index.token_precision == "int8"
        assert own_document_found(index)

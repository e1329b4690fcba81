"""Indexes that earlier versions wrote: tests/core/data/format-N was made by the last version with format N."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from muvera_core import MuveraIndex, check_index, repair_index
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import CorruptIndexError, StorageError, UnsupportedFormatError
from muvera_core.lexical import LexicalConfig, parse_query
from muvera_core.maintenance import migrations, rebuild
from muvera_core.storage.manifest import Manifest
from muvera_core.storage.token_codec import TokenCodec

D = 16
ENCODER = PrecomputedEmbeddings(D, "random")


def random_tokens(seed: int, n_texts: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((rng.integers(1, 12), D)).astype(np.float32) for _ in range(n_texts)]
    return [array / np.linalg.norm(array, axis=1, keepdims=True) for array in arrays]


def copy_of(version: int, tmp_path: Path) -> Path:
    """Eight documents were added, d3 was replaced and d8 added, d5 was deleted."""
    return Path(shutil.copytree(Path(__file__).parent / "data" / f"format-{version}", tmp_path / f"format-{version}"))


@pytest.fixture(params=[1, 2, 3, 4])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return copy_of(request.param, tmp_path)


@pytest.fixture
def format_1(tmp_path: Path) -> Path:
    return copy_of(1, tmp_path)


@pytest.fixture
def format_2(tmp_path: Path) -> Path:
    return copy_of(2, tmp_path)


def word_hits(index: MuveraIndex, question: str) -> list[str]:
    collection = index.engine.collection
    assert index.lexical is not None
    query = parse_query(index.lexical, question)
    keys, _ = collection.store.lexical_search(collection.snapshot(), query, 10)
    return [document.id for document in collection.store.documents(collection.snapshot(), keys)]


def assert_complete(index: MuveraIndex) -> None:
    first, second = random_tokens(0, 8), random_tokens(1, 2)
    tokens = {f"d{n}": first[n] for n in range(8)} | {"d3": second[0], "d8": second[1]}
    texts = {f"d{n}": f"text {n}" for n in range(8)} | {"d3": "replaced", "d8": "ü 🦉"}
    metadatas = {f"d{n}": {"n": n, "tags": ["a", "b"][: n % 3]} for n in range(8)} | {"d3": {}, "d8": {}}
    order = ["d0", "d1", "d2", "d4", "d6", "d7", "d3", "d8"]
    assert [(d.id, d.text, d.metadata) for d in index.find()] == [(id, texts[id], metadatas[id]) for id in order]
    assert [d.id for d in index.find({"tags": "b"})] == ["d2"]
    codec = TokenCodec("int8", D)
    assert index.lexical == LexicalConfig()
    assert word_hits(index, "text 4") == ["d4", "d0", "d1", "d2", "d6", "d7"]
    assert word_hits(index, "5") == []
    assert word_hits(index, "u replaced") == ["d3", "d8"]
    for id in order:
        offsets = np.array([0, len(tokens[id])])
        stored = codec.decode(codec.encode(tokens[id], offsets), offsets)
        (hit,) = [hit for hit in index.search_embeddings(stored, k=8) if hit.id == id]
        assert hit.score == pytest.approx(float((stored @ stored.T).max(axis=1).sum()), abs=1e-4)


def test_opening_an_old_index_for_writing_brings_it_up_to_date(old: Path) -> None:
    with MuveraIndex.open(old, ENCODER) as index:
        assert_complete(index)
        index.add_embeddings([np.eye(1, D)], ids=["d9"])
    assert Manifest.read(old).index_id == json.loads((old / "manifest.json").read_text())["index_id"]
    assert not (old / "tokens.bin").exists()
    assert check_index(old).ok
    with MuveraIndex.open(old, ENCODER, read_only=True) as index:
        assert len(index) == 9


def test_an_old_index_is_not_changed_by_opening_it_for_reading(old: Path) -> None:
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    with pytest.raises(UnsupportedFormatError, match="open it once for writing"):
        MuveraIndex.open(old, ENCODER, read_only=True)
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before


@pytest.mark.parametrize("where", ["before the new documents are in place", "before the new manifest is"])
def test_an_interrupted_migration_goes_on_at_the_next_opening(old: Path, where: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        if where.endswith("in place"):
            patch.setattr(migrations, "write_state", interrupt)
            for module in (rebuild, migrations):
                patch.setattr(module, "replace_database", interrupt)
        else:
            patch.setattr(Manifest, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            MuveraIndex.open(old, ENCODER)
    with MuveraIndex.open(old, ENCODER) as index:
        assert_complete(index)
    # Stage one of format 1 is derived from the documents. That of later formats is kept as it is.
    of_stage_one = [".codes", ".keys", ".scales"] if old.name in ("format-1", "format-4") else [".keys", ".vectors"]
    expected = [".bin", ".json", ".json", ".lock", ".sqlite", *of_stage_one]
    assert sorted(path.suffix for path in old.iterdir()) == sorted(expected)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_a_damaged_old_index_is_repaired(version: int, tmp_path: Path) -> None:
    old = copy_of(version, tmp_path)
    tokens = next(old.glob("tokens-*.bin"))
    tokens.write_bytes(tokens.read_bytes()[:-8])  # the end of the last document
    with pytest.raises(CorruptIndexError, match="repair"):
        MuveraIndex.open(old, ENCODER)
    assert repair_index(old, ENCODER).n_documents == 7
    assert check_index(old).ok
    with MuveraIndex.open(old, ENCODER) as index:
        assert [document.id for document in index.find()] == ["d0", "d1", "d2", "d4", "d6", "d7", "d3"]


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("is_lost", [True, False], ids=["lost", "damaged"])
def test_an_old_index_without_its_manifest_is_repaired(is_lost: bool, version: int, tmp_path: Path) -> None:
    old = copy_of(version, tmp_path)
    manifest = old / "manifest.json"
    if is_lost:
        manifest.unlink()
    else:
        manifest.write_text(manifest.read_text().replace("int8", "int9"))
    repair_index(old, ENCODER)
    assert check_index(old).ok
    with MuveraIndex.open(old, ENCODER) as index:
        assert_complete(index)


def test_a_centring_index_keeps_its_mean(format_1: Path) -> None:
    manifest = json.loads((format_1 / "manifest.json").read_text())
    manifest["fde"]["center"] = True
    (format_1 / "manifest.json").write_text(json.dumps(manifest))
    mean = np.arange(D, dtype="<f4").tobytes()
    db = sqlite3.connect(format_1 / "documents.sqlite")
    db.execute("INSERT INTO state VALUES ('mean_token', ?)", (mean,))
    db.commit()
    db.close()
    with MuveraIndex.open(format_1, ENCODER) as index:
        assert index.engine.collection.store.get_state("mean_token") == mean


@pytest.mark.parametrize(
    ("version", "sql"),
    [
        (1, "UPDATE documents SET first_token = 10000"),
        (1, "UPDATE documents SET n_tokens = 9223372036854775807 WHERE id = 'd2'"),
        (1, "UPDATE documents SET first_token = -5 WHERE id = 'd2'"),
        (1, "UPDATE documents SET n_tokens = 'many' WHERE id = 'd2'"),
        (1, "UPDATE state SET value = 'many' WHERE name = 'n_token_rows'"),
        (1, "UPDATE state SET value = 1e6 WHERE name = 'n_token_rows'"),
        (1, "DROP TABLE documents"),
        (2, "DROP TABLE documents"),
        (2, "UPDATE state SET value = 'many' WHERE name = 'n_token_rows'"),
        (2, "CREATE TRIGGER stray AFTER UPDATE ON state BEGIN DELETE FROM documents; END"),
        (2, "CREATE VIEW stray AS SELECT * FROM documents"),
        (2, "UPDATE documents SET metadata = NULL WHERE id = 'd2'"),
    ],
)
def test_a_damaged_old_index_is_refused_and_left_alone(tmp_path: Path, version: int, sql: str) -> None:
    old = copy_of(version, tmp_path)
    db = sqlite3.connect(old / "documents.sqlite")
    if "NULL" in sql:  # a database that was forged has no such constraint
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, 'metadata TEXT NOT NULL', 'metadata TEXT')")
        db.commit()
        db.close()
        db = sqlite3.connect(old / "documents.sqlite")
    db.execute(sql)
    db.commit()
    db.close()
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    with pytest.raises(CorruptIndexError):
        MuveraIndex.open(old, ENCODER)
    (old / "write.lock").unlink()
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before


def test_a_full_disk_stops_the_migration_and_loses_nothing(format_1: Path) -> None:
    def no_room(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("muvera_core.storage.token_log.write_at", no_room)
        with pytest.raises(StorageError, match="no room"):
            MuveraIndex.open(format_1, ENCODER)
    with MuveraIndex.open(format_1, ENCODER) as index:
        assert_complete(index)


def test_from_format_2_only_the_database_and_the_manifest_are_rewritten(format_2: Path) -> None:
    before = {path.name: path.read_bytes() for path in format_2.iterdir()}
    MuveraIndex.open(format_2, ENCODER).close()
    after = {path.name: path.read_bytes() for path in format_2.iterdir()}
    rewritten = {name for name in before if after[name] != before[name]}
    assert rewritten == {"documents.sqlite", "manifest.json"}
    assert after.keys() - before.keys() == {"write.lock"}


def test_a_document_that_was_damaged_before_stays_the_only_one(format_2: Path) -> None:
    db = sqlite3.connect(format_2 / "documents.sqlite")
    db.execute("UPDATE documents SET text = 'forged' WHERE id = 'd2'")
    db.commit()
    db.close()
    with MuveraIndex.open(format_2, ENCODER) as index:
        assert index.get("d4")[0].text == "text 4"
        with pytest.raises(CorruptIndexError):
            index.get("d2")


def test_format_1_whose_conversion_to_format_2_was_interrupted_before_the_manifest(
    format_1: Path, format_2: Path
) -> None:
    manifest = (format_1 / "manifest.json").read_text()
    shutil.rmtree(format_1)
    shutil.copytree(format_2, format_1)
    (format_1 / "manifest.json").write_text(manifest)
    with MuveraIndex.open(format_1, ENCODER) as index:
        assert_complete(index)
    assert check_index(format_1).ok

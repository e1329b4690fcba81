"""Documents of Chroma databases. make_chroma_databases.py made them with chromadb itself."""

from __future__ import annotations

import gzip
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from muvera_core.errors import InvalidInputError
from muvera_core.hits import Document
from muvera_core.imports import BadRecord, read_chroma

DATA = Path(__file__).with_name("data") / "chroma"
VERSIONS = ["0.5.23", "1.5.9"]
OWL = Document("owl", "Owls hunt at night.", {"legs": 2, "weight": 0.5, "wild": True, "habit": "night"})


@pytest.fixture(params=VERSIONS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return unpack(request.param, tmp_path)


def unpack(version: str, folder: Path) -> Path:
    """The folder of a database."""
    with gzip.open(DATA / f"chroma-{version}.sqlite3.gz") as source, (folder / "chroma.sqlite3").open("wb") as target:
        shutil.copyfileobj(source, target)
    return folder


def change(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database / "chroma.sqlite3")) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def test_texts_ids_and_metadata_are_read(database: Path) -> None:
    owl, ant = list(read_chroma(database, "birds"))[:2]
    assert owl == OWL
    assert isinstance(owl, Document)
    assert owl.metadata["wild"] is True  # and not 1
    assert ant == Document("ant", "Ants live in large colonies.", {"legs": 6})  # as it was updated


def test_lists_are_read(tmp_path: Path) -> None:
    heron = list(read_chroma(unpack("1.5.9", tmp_path), "birds"))[-1]
    assert heron == Document("heron", "Herons stand still.", {"tags": ["bird", "water"], "years": [1990, 2020]})


def test_records_without_text_are_named_and_deleted_ones_are_gone(database: Path) -> None:
    records = list(read_chroma(database / "chroma.sqlite3", "birds"))
    assert [record for record in records if isinstance(record, BadRecord)] == [
        BadRecord("blank", "its text is empty"),
        BadRecord("vector", "it has no text, only a vector"),
    ]
    assert "gone" not in {record.id for record in records if isinstance(record, Document)}


def test_a_collection_is_chosen_by_its_name(database: Path) -> None:
    assert list(read_chroma(database, "bread")) == [Document("rye", "Rye bread keeps for long.", {})]
    with pytest.raises(InvalidInputError, match=r"has several collections: choose one of 'birds', 'bread'"):
        read_chroma(database)
    with pytest.raises(InvalidInputError, match=r"has no collection 'fish': it has 'birds', 'bread'"):
        read_chroma(database, "fish")
    change(database, "DELETE FROM collections WHERE name = 'birds'")
    assert len(list(read_chroma(database))) == 1


def test_collections_of_the_same_name_need_their_database(database: Path) -> None:
    change(
        database,
        "INSERT INTO databases (id, name, tenant_id) VALUES ('d', 'other', 'default_tenant')",
        "UPDATE collections SET name = 'birds', database_id = 'd' WHERE name = 'bread'",
    )
    with pytest.raises(InvalidInputError, match=r"'default_tenant/default_database/birds'"):
        read_chroma(database, "birds")
    assert len(list(read_chroma(database, "default_tenant/other/birds"))) == 1


def test_many_records_are_read_in_pages(database: Path) -> None:
    rows = "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 1799)"
    change(
        database,
        f"{rows} INSERT INTO embeddings (id, segment_id, embedding_id, seq_id) "
        "SELECT i, (SELECT segment_id FROM embeddings WHERE embedding_id = 'rye'), 'n' || i, 1 FROM n",
        f"{rows} INSERT INTO embedding_metadata (id, key, string_value) "
        "SELECT i, 'chroma:document', 'Text ' || i FROM n",
    )
    ids = [record.id for record in read_chroma(database, "bread") if isinstance(record, Document)]
    assert ids == ["rye", *(f"n{i}" for i in range(100, 1800))]


def test_what_llama_index_adds_to_metadata_is_left_out(database: Path) -> None:
    change(
        database,
        "INSERT INTO embedding_metadata (id, key, string_value) SELECT id, '_node_content', '{}' FROM embeddings "
        "WHERE embedding_id = 'owl'",
    )
    assert next(iter(read_chroma(database, "birds"))) == OWL


def test_changes_that_are_only_in_the_log_are_reported(database: Path) -> None:
    change(
        database,
        "INSERT INTO embeddings_queue (seq_id, operation, topic, id, metadata) "
        "SELECT 99, 0, 'persistent://default/default/' || id, 'new', '{}' FROM collections WHERE name = 'birds'",
    )
    first = next(iter(read_chroma(database, "birds")))
    assert isinstance(first, BadRecord)
    assert "1 change of it are only in Chroma's log" in str(first)
    assert next(iter(read_chroma(database, "bread"))) == Document("rye", "Rye bread keeps for long.", {})


@pytest.fixture(params=["empty", "damaged", "other", "view", "missing"])
def no_database(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    file = tmp_path / "chroma.sqlite3"
    expected = "is not a Chroma database of a known version: it has no "
    if request.param == "empty":
        file.touch()
    elif request.param == "damaged":
        file.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
        expected = "cannot be read as a Chroma database"
    elif request.param == "other":
        change(tmp_path, "CREATE TABLE embeddings (id)")
    elif request.param == "view":
        unpack("1.5.9", tmp_path)
        change(tmp_path, "DROP TABLE max_seq_id", "CREATE VIEW max_seq_id AS SELECT 1 AS segment_id, 2 AS seq_id")
    else:
        expected = "does not exist"
    return tmp_path, expected


def test_other_files_are_refused(no_database: tuple[Path, str]) -> None:
    folder, expected = no_database
    with pytest.raises(InvalidInputError, match=expected):
        read_chroma(folder, "birds")


def test_a_database_is_read_while_chroma_has_it_open(database: Path) -> None:
    with closing(sqlite3.connect(database / "chroma.sqlite3", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        assert next(iter(read_chroma(database, "birds"))) == OWL

"""The one place where the tests know an index folder's format: forging parts of it with checksums that fit."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from muvera_core.files.checksums import file_checksum, row_hashes, signed_sum
from muvera_core.storage import manifest as manifest_module
from muvera_core.storage.database import read_snapshot_rows, write_state

DATABASE = "documents.sqlite"
# A first row so high that a document of two rows that starts there ends beyond the file.
LAST_ROW = 10_000
_SUPER_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def forge_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest and let its checksum fit."""
    path = folder / "manifest.json"
    content = change(json.loads(path.read_text()))
    if isinstance(content, dict):
        content["checksum"] = manifest_module._checksum(content)
    path.write_text(json.dumps(content))


def run_sql(folder: Path, sql: str) -> None:
    """Run statements on the database, whatever they do."""
    with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as db:
        db.executescript(sql)


def forge_state(folder: Path, values: dict[str, Any]) -> None:
    """Change named values and let their checksum fit."""
    with closing(sqlite3.connect(folder / DATABASE)) as db, db:
        write_state(db, values)


def forge_directory(folder: Path, first: int, count: int, n_rows: int | None) -> None:
    """Let one document's tokens stand elsewhere, and all checksums fit."""
    with closing(sqlite3.connect(folder / DATABASE)) as db, db:
        db.execute(
            "UPDATE directory SET first_token = ?, n_tokens = ? WHERE key = (SELECT max(key) FROM directory)",
            (first, count),
        )
        _vouch_for_directory(db, **({} if n_rows is None else {"n_token_rows": n_rows}))


def share_rows(folder: Path, n_documents: int) -> None:
    """Let as many documents' tokens stand where those of the first do, and all checksums fit."""
    with closing(sqlite3.connect(folder / DATABASE)) as db, db:
        first, count, checksum = db.execute(
            "SELECT first_token, n_tokens, token_checksum FROM directory ORDER BY key LIMIT 1"
        ).fetchone()
        db.execute(
            "UPDATE directory SET first_token = ?, n_tokens = ?, token_checksum = ? "
            "WHERE key IN (SELECT key FROM directory ORDER BY key LIMIT ?)",
            (first, count, checksum, n_documents),
        )
        _vouch_for_directory(db)


def _vouch_for_directory(db: sqlite3.Connection, **state: int) -> None:
    rows, _ = read_snapshot_rows(db)
    hashes = row_hashes(rows.columns)
    db.executemany("UPDATE directory SET hash = ? WHERE key = ?", zip(hashes.tolist(), rows.keys.tolist(), strict=True))
    write_state(db, {"digest": signed_sum(hashes)} | state)


def write_journal(folder: Path, super_journal: Path) -> None:
    """A hot rollback journal that names a super-journal, in SQLite's file format, section 3."""
    size = (folder / DATABASE).stat().st_size
    header = bytes.fromhex("d9d505f920a163d7") + struct.pack(">IIIII", 0, 0, size // 4096, 512, 4096)
    name = bytes(super_journal)
    checksum = sum(name) & 0xFFFFFFFF
    tail = struct.pack(">I", 2**30 // 4096 + 1) + name + struct.pack(">II", len(name), checksum) + _SUPER_JOURNAL_MAGIC
    (folder / f"{DATABASE}-journal").write_bytes(header.ljust(512, b"\0") + tail)


def stage_one_files(folder: Path) -> list[Path]:
    """The files that hold stage one, the description aside."""
    return [folder / name for name in json.loads((folder / "stage_one.json").read_text())["files"]]


def stage_one_file(folder: Path, suffix: str) -> Path:
    """The file of stage one whose name ends like this."""
    return next(path for path in stage_one_files(folder) if path.suffix == suffix)


def graph_file(folder: Path) -> Path:
    """The file that hnswlib reads."""
    return stage_one_file(folder, ".hnsw")


def vouch_for_stage_one(folder: Path) -> None:
    """Let the description fit the files as they are."""
    path = folder / "stage_one.json"
    description = json.loads(path.read_text())
    description["sizes"] = {name: (folder / name).stat().st_size for name in description["files"]}
    description["files"] = {name: file_checksum(folder / name) for name in description["files"]}
    path.write_text(json.dumps(description))

"""The folders that scripts start from: of the oldest format, or damaged; half of them in the midst of a commit."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
from crash_workload import ENCODER, FDE, D, Model, Scenario, make_docs, make_script, models_of, perform
from power_loss import Tree, read_tree, write_tree

from muvera_core import TokenEmbeddings
from muvera_core.storage.token_codec import TokenCodec

FORMAT_1 = Path(__file__).parents[2] / "core" / "data" / "format-1"
DATABASE = "documents.sqlite"
CODEC = TokenCodec("int8", D)
WAYS = ("tokens", "all tokens", "tokens, header", "record", "fields", "tokens, header")
N_OLD_DOCUMENTS = 14
MOST_DAMAGED = 4


def start_model(scenario: Scenario, seed: int, n_operations: int) -> Model:
    """The documents of ``start_tree``; of a damaged folder those that a repair must give, in its order."""
    if scenario == "migration":
        rng = np.random.default_rng(seed)
        ids = [f"d{i}" for i in range(N_OLD_DOCUMENTS)]
        return {doc.id: doc for id in ids for doc in make_docs(rng, [id], 0)}
    if scenario != "repair":
        return {}
    model, way = _before_damage(seed, n_operations), _way(seed)
    damaged = _damaged(seed, model)
    if way == "record":
        return {id: doc for id, doc in model.items() if id not in damaged}
    if way == "fields":
        return model
    whole = {id: doc for id, doc in model.items() if id not in damaged}
    return whole | {id: model[id] for id in damaged if model[id].text is not None}


def start_tree(scenario: Scenario, seed: int, n_operations: int, work: Path) -> Tree:
    """What is there before the script, made in the folder ``work``, which is removed again."""
    if scenario in ("life", "create"):
        return {}
    folder = work / "index"
    folder.mkdir(parents=True)
    if scenario == "migration":
        _write_format_1(folder, start_model(scenario, seed, n_operations))
        change = None
    else:
        change = _write_damaged(folder, seed, n_operations)
    tree = _in_midst_of_a_commit(folder) if seed % 2 else read_tree(work)
    shutil.rmtree(work)
    if change is not None:
        write_tree(tree, work)
        change(folder)
        tree = read_tree(work)
        shutil.rmtree(work)
    return tree


def _before_damage(seed: int, n_operations: int) -> Model:
    return models_of(make_script(seed, n_operations), {})[-1]


def _way(seed: int) -> str:
    return WAYS[seed % len(WAYS)]


def _damaged(seed: int, model: Model) -> list[str]:
    """Ids of the damaged documents, in the order of the model."""
    rng = np.random.default_rng(seed)
    some = set(rng.permutation(list(model))[: rng.integers(1, MOST_DAMAGED + 1)].tolist())
    return [id for id in model if id in some or _way(seed) == "all tokens"]


def _write_format_1(folder: Path, model: Model) -> None:
    manifest = json.loads((FORMAT_1 / "manifest.json").read_text())
    manifest |= {"encoder": ENCODER.fingerprint, "fde": asdict(FDE)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shutil.copyfile(FORMAT_1 / DATABASE, folder / DATABASE)
    tokens = TokenEmbeddings.from_list([doc.tokens for doc in model.values()])
    rows = CODEC.encode(tokens.vectors, tokens.offsets)
    (folder / "tokens.bin").write_bytes(rows.tobytes())
    (folder / "stage_one.json").write_text("{}")
    with closing(sqlite3.connect(folder / DATABASE)) as db:
        for table in ("documents", "fields", "state"):
            db.execute(f"DELETE FROM {table}")
        first = 0
        for doc in model.values():
            values = (doc.id, doc.text, json.dumps(doc.metadata), first, len(doc.tokens))
            db.execute(
                "INSERT INTO documents (id, text, metadata, first_token, n_tokens) VALUES (?, ?, ?, ?, ?)", values
            )
            first += len(doc.tokens)
        db.execute("INSERT INTO state VALUES ('n_token_rows', ?)", (first,))
        db.commit()


def _write_damaged(folder: Path, seed: int, n_operations: int) -> Callable[[Path], None] | None:
    """A folder with damage; what is returned does the rest of it."""
    index = None
    for operation in make_script(seed, n_operations):
        index = perform(index, operation, folder)
    assert index is not None
    index.close()
    model, way = _before_damage(seed, n_operations), _way(seed)
    with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as db:
        (generation,) = db.execute("SELECT value FROM state WHERE name = 'generation'").fetchone()
        keys = dict(db.execute("SELECT id, key FROM documents").fetchall())
        places = dict(db.execute("SELECT key, first_token FROM directory").fetchall())
        for id in _damaged(seed, model):
            if way == "record":
                db.execute("UPDATE documents SET text = 'something else' WHERE key = ?", (keys[id],))
            elif way == "tokens" or "," in way:
                _flip_a_bit(folder / f"tokens-{generation}.bin", places[keys[id]] * CODEC.row_dtype.itemsize + 5)
        if way == "fields":
            db.execute("DELETE FROM fields WHERE path = 'group'")
    if way == "all tokens":
        (folder / f"tokens-{generation}.bin").unlink()
    return _damage_header if "header" in way else None


def _damage_header(folder: Path) -> None:
    with (folder / DATABASE).open("r+b") as file:
        file.write(b"not a header")


def _flip_a_bit(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 4]))


def _in_midst_of_a_commit(folder: Path) -> Tree:
    """What is there when a large change has been written to the database in part, and has to be undone."""
    with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as db:
        for setting in ("cache_size = 2", "cache_spill = ON", "synchronous = FULL"):
            db.execute(f"PRAGMA {setting}")
        before = (folder / DATABASE).read_bytes()
        db.execute("BEGIN")
        db.execute("UPDATE documents SET metadata = replace(metadata, 'operation', 'half done')")
        db.execute("CREATE TABLE filling (content)")
        db.executemany("INSERT INTO filling VALUES (?)", [(bytes(3000),)] * 10)
        tree = read_tree(folder.parent)
        if tree[f"index/{DATABASE}"] == before or not tree[f"index/{DATABASE}-journal"]:
            raise RuntimeError("nothing of the change has reached the database")
        db.execute("ROLLBACK")
    return tree

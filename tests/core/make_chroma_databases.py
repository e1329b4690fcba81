"""Makes tests/core/data/chroma: databases that chromadb itself wrote, for test_import_chroma.py.

    python tests/core/make_chroma_databases.py

Writes chroma-VERSION.sqlite3.gz for the version of chromadb that is installed. The committed files are of 0.5.23 and
1.5.9. The vectors are given, so nothing is downloaded. Chroma keeps them in other files, which are not needed.
"""

from __future__ import annotations

import gzip
import importlib
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("data") / "chroma"


def fill(client: Any, with_lists: bool) -> None:
    birds = client.create_collection("birds", embedding_function=None)
    birds.add(
        ids=["owl", "ant", "blank"],
        documents=["Owls hunt at night.", "Ants live in colonies.", ""],
        metadatas=[{"legs": 2, "weight": 0.5, "wild": True, "habit": "night"}, None, {"a": "b"}],
        embeddings=[[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]],
    )
    birds.add(ids=["vector"], metadatas=[{"x": 1}], embeddings=[[0.5, 0.5]])
    birds.add(ids=["gone"], documents=["This is deleted."], embeddings=[[0.5, 0.5]])
    birds.update(
        ids=["ant"], documents=["Ants live in large colonies."], metadatas=[{"legs": 6}], embeddings=[[0.0, 2.0]]
    )
    birds.delete(ids=["gone"])
    if with_lists:
        lists = {"tags": ["bird", "water"], "years": [1990, 2020]}
        birds.add(ids=["heron"], documents=["Herons stand still."], metadatas=[lists], embeddings=[[0.5, 0.5]])
    bread = client.create_collection("bread", embedding_function=None)
    bread.add(ids=["rye"], documents=["Rye bread keeps for long."], embeddings=[[1.0, 2.0, 3.0]])


def main() -> None:
    chromadb: Any = importlib.import_module("chromadb")
    version = chromadb.__version__
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        client = chromadb.PersistentClient(folder, chromadb.Settings(anonymized_telemetry=False))
        fill(client, with_lists=not version.startswith("0."))
        source = Path(folder) / "chroma.sqlite3"
        with sqlite3.connect(source) as db:
            db.execute("VACUUM")
        db.close()
        (FOLDER / f"chroma-{version}.sqlite3.gz").write_bytes(gzip.compress(source.read_bytes(), 9, mtime=0))


if __name__ == "__main__":
    main()

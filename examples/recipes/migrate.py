"""Take documents over from RAGatouille, Chroma, LlamaIndex or LangChain, and change them on the way.

    python examples/recipes/migrate.py                                            # a small index of RAGatouille
    python examples/recipes/migrate.py .ragatouille/colbert/indexes/notes --index notes.muvera

If nothing is to be changed, ``muvera import notes.muvera SOURCE`` does the same. Neither needs the other program, and
nothing is unpickled. docs/migrating.md shows what takes the place of which call.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from muvera_core import Document, MuveraIndex
from muvera_core.imports import BadRecord, Imported, find_source, import_documents, read_source


def cleaned(records: Iterable[Imported]) -> Iterator[Imported]:
    """The records with what is to be different: drafts are left out, and all know where they came from."""
    for record in records:
        if isinstance(record, BadRecord):
            yield record
        elif not record.metadata.get("draft"):
            yield replace(record, metadata={**record.metadata, "imported_from": "old system"})


def write_small_source(folder: Path) -> Path:
    """The files of a RAGatouille index that hold its texts."""
    folder.mkdir()
    texts = ["Owls hunt at night.", "Their flight is silent.", "Ants live in colonies.", "Unfinished."]
    ids = {"0": "birds", "1": "birds", "2": "ants", "3": "notes"}
    (folder / "collection.json").write_text(json.dumps(texts))
    (folder / "pid_docid_map.json").write_text(json.dumps(ids))
    (folder / "docid_metadata_map.json").write_text(json.dumps({"birds": {"year": 2020}, "notes": {"draft": True}}))
    return folder


def migrate(path: Path, index: MuveraIndex) -> None:
    source = find_source(path)
    print(f"{source.format}:", import_documents(index, cleaned(read_source(path))))
    print("again:", import_documents(index, cleaned(read_source(path))))  # what is there is not encoded again
    documents: list[Document] = index.find(limit=3)
    for document in documents:
        print(document.id, document.metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path)
    parser.add_argument("--index", type=Path, help="folder for the index (default: in memory)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = arguments.source or write_small_source(Path(temporary) / "notes")
        with MuveraIndex.open_or_create(arguments.index) if arguments.index else MuveraIndex.create(None) as index:
            migrate(path, index)


if __name__ == "__main__":
    main()

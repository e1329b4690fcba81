"""Bringing an index in line with the documents of files: comparing first, then writing only what differs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muvera_core.batches import batched
from muvera_core.cli.corpus_files import ORIGIN, SourceDocument, SourceFile, Unusable, place
from muvera_core.index import MuveraIndex

_COMPARED_TOGETHER = 256
# Written, and safe, together: what an interruption costs at most. The characters bound the memory that encoding takes.
_WRITTEN_TOGETHER = 64
_CHARACTERS_TOGETHER = 1 << 20


@dataclass
class Comparison:
    """How the documents of files differ from those of an index.

    Attributes:
        places: where each document is, by id.
        new: ids that the index doesn't have.
        changed: ids whose text or metadata differ.
        unusable: what of the files can't be used.
    """

    places: dict[str, tuple[SourceFile, int | None]] = field(default_factory=dict)
    new: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    unusable: list[Unusable] = field(default_factory=list)

    @property
    def n_unchanged(self) -> int:
        """How many documents the index has as they are."""
        return len(self.places) - len(self.new) - len(self.changed)


def compare(index: MuveraIndex | None, documents: Iterable[SourceDocument | Unusable]) -> Comparison:
    """Compare documents of files with those of an index; None stands for one that has none."""
    result = Comparison()

    def distinct() -> Iterator[SourceDocument]:
        for document in documents:
            if isinstance(document, Unusable):
                result.unusable.append(document)
            elif document.id in result.places:
                other = place(*result.places[document.id])
                reason = f"its id {document.id!r} is that of {other}, too"
                result.unusable.append(Unusable(document.file, document.line, reason))
            else:
                result.places[document.id] = document.file, document.line
                yield document

    for some in batched(distinct(), _COMPARED_TOGETHER):
        stored = {} if index is None else {found.id: found for found in index.get([document.id for document in some])}
        for document in some:
            before = stored.get(document.id)
            if before is None:
                result.new.add(document.id)
            elif other := _other_file(document, before.metadata):
                del result.places[document.id]
                reason = f"its id {document.id!r} is in the index already, for {other}: use an index of its own for it"
                result.unusable.append(Unusable(document.file, document.line, reason))
            elif before.text != document.text or _canonical(before.metadata) != _canonical(document.metadata):
                result.changed.add(document.id)
    return result


def write(index: MuveraIndex, documents: Iterable[SourceDocument | Unusable], ids: set[str]) -> Iterator[list[str]]:
    """Add those documents that have one of the ids, a few at a time; each lot is safe when its ids are yielded."""
    waiting = set(ids)
    batch: list[SourceDocument] = []
    n_characters = 0
    for document in documents:
        if isinstance(document, Unusable) or document.id not in waiting:
            continue
        waiting.remove(document.id)  # the first one with an id counts
        if batch and (len(batch) == _WRITTEN_TOGETHER or n_characters + len(document.text) > _CHARACTERS_TOGETHER):
            yield _add(index, batch)
            batch, n_characters = [], 0
        batch.append(document)
        n_characters += len(document.text)
    if batch:
        yield _add(index, batch)


def find_missing(index: MuveraIndex, roots: Iterable[Path], comparison: Comparison) -> list[str]:
    """Ids of documents that came from the same roots and aren't in their files any more.

    What can't be read may still be there: the documents of unusable files aren't missing.
    """
    names = {SourceFile(root, root).origin["root"] for root in roots}
    spared = {_origin_of(entry.file) for entry in comparison.unusable}
    return [
        document.id
        for document in index.find({f"{ORIGIN}.root": {"$in": sorted(names)}})
        if document.id not in comparison.places and not _is_spared(document.metadata[ORIGIN], spared)
    ]


def _origin_of(file: SourceFile) -> tuple[str, str]:
    """Root and name below it; no name where it is the root itself."""
    return file.origin["root"], "" if file.path == file.root else file.name


def _is_spared(origin: Any, spared: set[tuple[str, str]]) -> bool:
    root, file = origin["root"], str(origin.get("file"))
    above = (file[:end] for end, character in enumerate(file) if character == "/")
    return any((root, name) in spared for name in ["", *above, file])


def _other_file(document: SourceDocument, stored: Mapping[str, Any]) -> str | None:
    """The file, still there, that gave the document's id to another one, unless it is the user who gives ids."""
    origin = stored.get(ORIGIN)
    if document.id_is_own or not isinstance(origin, dict) or origin.get("root") == document.file.origin["root"]:
        return None
    root = Path(str(origin.get("root")))
    path = root if root.is_file() else root / str(origin.get("file"))
    return str(path) if path.is_file() and not path.samefile(document.file.path) else None


def _add(index: MuveraIndex, documents: list[SourceDocument]) -> list[str]:
    return index.add(
        [document.text for document in documents],
        [document.id for document in documents],
        [document.metadata for document in documents],
    )


def _canonical(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, sort_keys=True)

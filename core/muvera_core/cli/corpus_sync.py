"""Updates an index to match the documents of files: compares first, then writes only what differs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muvera_core.batches import batched
from muvera_core.corpus import ORIGIN, SourceDocument, SourceFile, Unusable, other_file, place
from muvera_core.index import MuveraIndex

_COMPARED_TOGETHER = 256
# Most documents, and characters, that are written together. An interruption costs one such batch at most. The limit on
# characters bounds the memory that encoding takes.
_WRITTEN_TOGETHER = 64
_CHARACTERS_TOGETHER = 1 << 20
_IMAGES_TOGETHER = 8


@dataclass
class Comparison:
    """The differences between the documents of files and those of an index.

    Attributes:
        places: file and line of each document, by id.
        new: ids that the index does not have.
        changed: ids of documents whose text, image or metadata differ from the index.
        unusable: files and lines that cannot be used.
    """

    places: dict[str, tuple[SourceFile, int | None]] = field(default_factory=dict)
    new: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    unusable: list[Unusable] = field(default_factory=list)

    @property
    def n_unchanged(self) -> int:
        """Number of documents that are the same in the index."""
        return len(self.places) - len(self.new) - len(self.changed)


def compare(index: MuveraIndex | None, documents: Iterable[SourceDocument | Unusable]) -> Comparison:
    """Compare documents of files with those of an index. None stands for an empty index."""
    result = Comparison()

    def distinct() -> Iterator[SourceDocument]:
        for document in documents:
            if isinstance(document, Unusable):
                result.unusable.append(document)
            elif document.id in result.places:
                other = place(*result.places[document.id])
                reason = f"its id {document.id!r} is also the id of {other}"
                result.unusable.append(Unusable(document.file, document.line, reason))
            else:
                result.places[document.id] = document.file, document.line
                yield document

    for batch in batched(distinct(), _COMPARED_TOGETHER):
        stored = {} if index is None else {found.id: found for found in index.get([document.id for document in batch])}
        for document in batch:
            before = stored.get(document.id)
            if before is None:
                result.new.add(document.id)
            elif other := other_file(document, before.metadata):
                del result.places[document.id]
                reason = f"its id {document.id!r} is already in the index, for {other}: use a separate index"
                result.unusable.append(Unusable(document.file, document.line, reason))
            elif (before.text, before.image_digest, _canonical(before.metadata)) != (
                document.text,
                document.image_digest,
                _canonical(document.metadata),
            ):
                result.changed.add(document.id)
    return result


def write(index: MuveraIndex, documents: Iterable[SourceDocument | Unusable], ids: set[str]) -> Iterator[list[str]]:
    """Add the documents with these ids, in batches. Yields the ids of each batch once it is saved."""
    waiting = set(ids)
    batch: list[SourceDocument] = []
    n_characters = 0
    for document in documents:
        if isinstance(document, Unusable) or document.id not in waiting:
            continue
        waiting.remove(document.id)  # the first one with an id counts
        length = len(document.text or "")
        if batch and not _fits(batch, document, n_characters + length):
            yield _add(index, batch)
            batch, n_characters = [], 0
        batch.append(document)
        n_characters += length
    if batch:
        yield _add(index, batch)


def find_missing(index: MuveraIndex, roots: Iterable[Path], comparison: Comparison) -> list[str]:
    """Ids of indexed documents that came from the same roots and are no longer in their files.

    Documents of unusable files do not count as missing, because they may still be there.
    """
    names = {SourceFile(root, root).origin["root"] for root in roots}
    unreadable = {_origin_of(entry.file) for entry in comparison.unusable}
    return [
        document.id
        for document in index.find({f"{ORIGIN}.root": {"$in": sorted(names)}})
        if document.id not in comparison.places and not _is_below(document.metadata[ORIGIN], unreadable)
    ]


def _origin_of(file: SourceFile) -> tuple[str, str]:
    """The root, and the file's name below it; an empty name for the root itself."""
    return file.origin["root"], "" if file.path == file.root else file.name


def _is_below(origin: Any, places: set[tuple[str, str]]) -> bool:
    """Whether a document came from one of these files or folders."""
    root, file = origin["root"], str(origin.get("file"))
    above = (file[:end] for end, character in enumerate(file) if character == "/")
    return any((root, name) in places for name in ["", *above, file])


def _fits(batch: list[SourceDocument], document: SourceDocument, n_characters: int) -> bool:
    """Whether a document can be written together with a batch: both are texts, or both are images."""
    if document.text is None:
        return batch[0].text is None and len(batch) < _IMAGES_TOGETHER
    return batch[0].text is not None and len(batch) < _WRITTEN_TOGETHER and n_characters <= _CHARACTERS_TOGETHER


def _add(index: MuveraIndex, documents: list[SourceDocument]) -> list[str]:
    """Add texts, or images. Returns the ids of those that were added: images may turn out to be damaged."""
    ids, metadatas = [document.id for document in documents], [document.metadata for document in documents]
    if documents[0].text is not None:
        return index.add([document.text or "" for document in documents], ids, metadatas)
    index.add_images([document.file.path for document in documents], ids, metadatas=metadatas)
    digests = {document.id: document.image_digest for document in documents}
    return [document.id for document in index.get(ids) if document.image_digest == digests[document.id]]


def _canonical(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, sort_keys=True)

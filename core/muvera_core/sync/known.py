"""What an index has from files: which documents of which file, and which texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muvera_core.corpus import ORIGIN, exists, file_of, name_of
from muvera_core.hits import Document
from muvera_core.index import IndexCalls

_FILE = f"{ORIGIN}.file"
_DIGEST = f"{ORIGIN}.digest"
_READ_TOGETHER = 512
# So many parts of an absolute path are the same on many machines, such as the two of "/home".
_SHARED_PARTS = 2


@dataclass(frozen=True)
class Seal:
    """Says that a file is completely in the index. Its first document has it, written last.

    Attributes:
        id: id of the document.
        digest: of the file's content, and of how it was read.
        n: number of the file's documents.
    """

    id: str
    digest: str
    n: int

    def as_origin(self, file: str) -> dict[str, Any]:
        """The value of the metadata field ``ORIGIN`` of the sealed document."""
        return {"file": file, "digest": self.digest, "n": self.n}


@dataclass
class KnownFile:
    """The documents that came from a file.

    Attributes:
        contents: for each id, what the document says; see ``content_of``.
        texts: for each id, a hash of the text or image.
        seal: None if the file was not completely indexed, or its documents were changed since.
    """

    contents: dict[str, int] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)
    seal: Seal | None = None

    def is_sealed(self, digest: str) -> bool:
        """Whether all documents of the file are there, made from a content with this digest."""
        return self.seal is not None and (self.seal.digest, self.seal.n) == (digest, len(self.contents))


@dataclass
class Known:
    """What an index has from files.

    Attributes:
        files: by name, the files below the paths that are synced.
        elsewhere: other files that moved to these paths.
        donors: for the hash of each text, the id of a document that has it.
    """

    files: dict[str, KnownFile] = field(default_factory=dict)
    elsewhere: dict[str, KnownFile] = field(default_factory=dict)
    donors: dict[int, str] = field(default_factory=dict)

    def add(self, files: dict[str, KnownFile], document: Document, name: str | None = None) -> None:
        """Note a document that came from a file, in one of the two.

        Args:
            files: one of the two.
            document: the document.
            name: what the file is called now. None stands for what it was called.
        """
        origin = document.metadata[ORIGIN]
        known = files.setdefault(name or origin["file"], KnownFile())
        text = text_of(document.text, document.image_digest)
        known.texts[document.id] = text
        known.contents[document.id] = content_of(text, document.metadata)
        if document.image_digest is None:
            self.donors.setdefault(text, document.id)
        if name is None and isinstance(origin.get("digest"), str) and isinstance(origin.get("n"), int):
            known.seal = Seal(document.id, origin["digest"], origin["n"])


def read_known(index: IndexCalls, roots: Sequence[str], home: Path | None) -> Known:
    """What the index has from files that are called, or are below, one of these names.

    Files that had absolute names, because the index was elsewhere, are known by the names that they have now.
    """
    known = Known()
    former = [] if home is None else [name_of(home / root, None) for root in roots if not Path(root).is_absolute()]
    filter = {"$or": [condition for root in [*roots, *former] for condition in _at_or_below(root)]}
    for document in _from_files(index, filter):
        name = document.metadata[ORIGIN]["file"]
        if any(is_below(name, root) for root in roots):
            known.add(known.files, document)
        elif any(is_below(name, root) for root in former):
            known.add(known.files, document, name_of(Path(name), home))
    return known


def has_any(index: IndexCalls, root: str) -> bool:
    """Whether the index has documents from a file or folder of this name."""
    return index.count({"$or": _at_or_below(root)}) > 0


def files_with(index: IndexCalls, digests: Iterable[str]) -> Iterator[str]:
    """Names of the files that were sealed with one of these digests."""
    wanted = sorted(digests)
    for start in range(0, len(wanted), _READ_TOGETHER):
        for document in _from_files(index, {_DIGEST: {"$in": wanted[start : start + _READ_TOGETHER]}}):
            yield document.metadata[ORIGIN]["file"]


def read_elsewhere(index: IndexCalls, known: Known, file: str) -> None:
    """Add to ``known`` what the index has from a file that is not below the paths that are synced."""
    for document in _from_files(index, {_FILE: file}):
        known.add(known.elsewhere, document)


def is_below(name: str, root: str) -> bool:
    """Whether a file's name is that of a file or folder, or below it."""
    if root == ".":
        return not name.startswith("/") and name[1:3] != ":/"  # files that are not beside the index have absolute names
    return name == root or name.startswith(f"{root.rstrip('/')}/")


def may_exist(name: str, home: Path | None) -> bool:
    """Whether a file of this name may be there. Others may keep the same index in step with files of their machines.

    A file can have been on this machine if more than the first folder of its path is here. Files beside the index are
    where the index is.
    """
    path = Path(name)
    is_of_here = not path.is_absolute() or any(
        len(above.parts) > _SHARED_PARTS and exists(str(above), None) for above in path.parents
    )
    return not is_of_here or exists(name, home)


def text_of(text: str | None, image_digest: str | None) -> int:
    """A hash of what a document's tokens are made from."""
    return hash((text, image_digest))


def content_of(text: int, metadata: Mapping[str, Any]) -> int:
    """A hash of a document's text and metadata, apart from its seal. 1, 1.0 and True differ."""
    file = file_of(metadata)
    plain = metadata if file is None else {**metadata, ORIGIN: file}
    return hash((text, json.dumps(plain, sort_keys=True)))


def _at_or_below(root: str) -> list[dict[str, Any]]:
    if root == ".":
        return [{_FILE: {"$exists": True}}]
    start = root.rstrip("/")
    after = chr(ord("/") + 1)
    return [{_FILE: root}, {"$and": [{_FILE: {"$gte": f"{start}/"}}, {_FILE: {"$lt": f"{start}{after}"}}]}]


def _from_files(index: IndexCalls, filter: Mapping[str, Any]) -> Iterator[Document]:
    documents = index.iterate(filter, batch_size=_READ_TOGETHER)
    return (document for document in documents if file_of(document.metadata) is not None)

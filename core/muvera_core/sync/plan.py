"""Compares files with what an index has of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from muvera_core.batches import batched
from muvera_core.corpus import Reading, SourceDocument, SourceFile, Unusable, file_of, place, read_documents, reason_of
from muvera_core.encoders import TokenEncoder
from muvera_core.index import IndexCalls
from muvera_core.sync.known import Known, Seal, content_of, may_exist, text_of

_COMPARED_TOGETHER = 256
# Characters of texts to write that are kept in memory, so that their files are not read again.
_KEPT_CHARACTERS = 1 << 25
_HASHED_TOGETHER = 1 << 20


@dataclass
class FilePlan:
    """A file that has documents.

    Attributes:
        file: the file.
        digest: of its content and of how it is read. None if it cannot be sealed.
        ids: ids of its documents.
        n_waiting: how many of them are still to be written.
        is_text: whether it is one text, in passages; otherwise it has records.
        is_sealed: whether the index has it as it is, so that it was not read.
    """

    file: SourceFile
    digest: str | None
    ids: list[str] = field(default_factory=list)
    n_waiting: int = 0
    is_text: bool = True
    is_sealed: bool = False

    @property
    def seal(self) -> Seal | None:
        """The seal for the index, once everything is written."""
        return Seal(self.ids[0], self.digest, len(self.ids)) if self.digest and self.ids else None


@dataclass
class Plan:
    """What is to be written.

    Attributes:
        files: by name, the files that were found and have documents.
        places: file and line of each document, by id.
        new: ids that the index does not have.
        changed: ids of documents whose text, image or metadata differ from the index.
        texts: hashes of the texts that were read.
        kept: documents to write, as many as may be in memory.
        unusable: files and lines that cannot be used.
    """

    files: dict[str, FilePlan] = field(default_factory=dict)
    places: dict[str, tuple[SourceFile, int | None]] = field(default_factory=dict)
    new: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    texts: set[int] = field(default_factory=set)
    kept: list[SourceDocument] = field(default_factory=list)
    unusable: list[Unusable] = field(default_factory=list)

    @property
    def n_unchanged(self) -> int:
        """Number of documents that are the same in the index."""
        return len(self.places) - len(self.new) - len(self.changed)


class Planner:
    """Makes a plan, file by file.

    Args:
        index: the index.
        known: what it has from these files.
        reading: how to read files.
        encoder: counts tokens.
    """

    def __init__(self, index: IndexCalls, known: Known, reading: Reading, encoder: TokenEncoder) -> None:
        self.plan = Plan()
        self._index, self._known, self._reading, self._encoder = index, known, reading, encoder
        self._salt = json.dumps([version("muvera-core"), reading.to_json()], sort_keys=True).encode()
        self._n_characters = 0
        self._taken: dict[str, str] = {}

    def add(self, files: Iterable[SourceFile | Unusable], on_file: Callable[[str], None]) -> None:
        """Compare files with the index. ``on_file`` is called with the name of each one that was read."""

        def distinct() -> Iterator[SourceDocument]:
            for file in files:
                if isinstance(file, Unusable):
                    self.plan.unusable.append(file)
                else:
                    yield from self._documents(file)
                    on_file(file.name)

        for batch in batched(distinct(), _COMPARED_TOGETHER):
            self._compare(batch)
        self._leave_out_taken()

    def _documents(self, file: SourceFile) -> Iterator[SourceDocument]:
        """The documents of a file that have to be compared."""
        plan, name = self.plan, file.name
        try:
            digest = self._digest(file)
        except OSError as error:
            plan.unusable.append(Unusable(file, None, f"it cannot be read ({reason_of(error)})", kind="unreadable"))
            return
        known = self._known.files.get(name)
        if known is not None and known.is_sealed(digest) and plan.places.keys().isdisjoint(known.contents):
            plan.places |= dict.fromkeys(known.contents, (file, None))
            plan.files[name] = FilePlan(file, digest, list(known.contents), is_sealed=True)
            return
        found = FilePlan(file, digest)
        for entry in read_documents(file, self._reading, self._encoder):
            if isinstance(entry, SourceDocument) and entry.id in plan.places:
                other = place(*plan.places[entry.id])
                reason = f"its id {entry.id!r} is also the id of {other}"
                entry = Unusable(file, entry.line, reason, kind="duplicate")
            if isinstance(entry, Unusable):
                plan.unusable.append(entry)
                found.digest = None  # so that it is told again
                continue
            plan.places[entry.id] = file, entry.line
            found.ids.append(entry.id)
            found.is_text &= entry.line is None
            if entry.text is None:
                found.digest = None  # the index has a digest of each image
            yield entry
        if found.ids:
            plan.files[name] = found

    def _compare(self, batch: Sequence[SourceDocument]) -> None:
        """Note which documents differ from those that the index has."""
        plan = self.plan
        stored: dict[str, int] = {}
        for document in batch:
            known = self._known.files.get(document.file.name)
            if known is not None and document.id in known.contents:
                stored[document.id] = known.contents[document.id]
        others = [document.id for document in batch if document.id not in stored]
        by_id = {document.id: document for document in batch}
        for found in self._index.get(others) if others else ():
            if owner := self._other_owner(by_id[found.id], found.metadata):
                self._taken[found.id] = owner
            stored[found.id] = content_of(text_of(found.text, found.image_digest), found.metadata)
        for document in batch:
            if document.id in self._taken:
                continue
            text = text_of(document.text, document.image_digest)
            plan.texts.add(text)
            if document.id not in stored:
                plan.new.add(document.id)
            elif stored[document.id] != content_of(text, document.metadata):
                plan.changed.add(document.id)
            else:
                continue
            self._keep(document)

    def _other_owner(self, document: SourceDocument, stored: Mapping[str, Any]) -> str | None:
        """Where the index has a document's id from, if that is not for this file to replace; None if it is.

        Args:
            document: the document.
            stored: metadata of the document that the index has under its id.
        """
        name = file_of(stored)
        if name is None:
            return "a document that came from no file" if document.id_is_own else None
        home = document.file.home
        if name in self._known.files or not may_exist(name, home):
            return None
        try:
            is_same = (Path(name) if home is None else home / name).samefile(document.file.path)
        except OSError:  # it is on another machine, or cannot be looked at
            is_same = False
        return None if is_same else name

    def _leave_out_taken(self) -> None:
        """Take documents out of the plan whose ids belong to others in the index."""
        files = set()
        for id, owner in self._taken.items():
            file, line = self.plan.places.pop(id)
            reason = f"its id {id!r} is also the id of {owner}, which the index has"
            self.plan.unusable.append(Unusable(file, line, reason, kind="duplicate"))
            files.add(file.name)
        for name in files:
            found = self.plan.files[name]
            found.ids = [id for id in found.ids if id not in self._taken]
            found.digest = None
            if not found.ids:
                del self.plan.files[name]

    def _keep(self, document: SourceDocument) -> None:
        self._n_characters += len(document.text or "")
        if self._n_characters <= _KEPT_CHARACTERS:
            self.plan.kept.append(document)

    def _digest(self, file: SourceFile) -> str:
        digest = hashlib.blake2b(self._salt, digest_size=16)
        with file.path.open("rb") as stream:
            while chunk := stream.read(_HASHED_TOGETHER):
                digest.update(chunk)
        return digest.hexdigest()


def wanted_documents(plan: Plan, reading: Reading, encoder: TokenEncoder) -> Iterator[SourceDocument]:
    """The documents to write, file by file. Those that are not in memory are read again."""
    waiting = plan.new | plan.changed
    for document in plan.kept:
        waiting.discard(document.id)
        yield document
    for name in dict.fromkeys(plan.places[id][0].name for id in plan.places if id in waiting):
        for entry in read_documents(plan.files[name].file, reading, encoder):
            if isinstance(entry, SourceDocument) and entry.id in waiting:
                waiting.remove(entry.id)  # the first one with an id counts
                yield entry

"""The calls that read documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.filters import Condition, compile_filter
from muvera_core.hits import Document
from muvera_core.index.parts import Filter, IndexParts, one_or_more, to_document
from muvera_core.storage import Snapshot, StoredDocument
from muvera_core.token_embeddings import FloatArray
from muvera_core.validation import require_count, require_unicode


class ReadingCalls(IndexParts):
    """Reads documents."""

    def get(self, ids: str | Sequence[str]) -> list[Document]:
        """The documents with these ids, in the order of the ids. Unknown ids are skipped."""
        self._start_reading()
        wanted = one_or_more(ids)
        store = self._collection.store
        found = self._collection.read_with_retry(lambda snapshot: store.documents_by_id(snapshot, wanted))
        return [to_document(document) for document in found]

    def get_embeddings(self, ids: str | Sequence[str]) -> dict[str, FloatArray]:
        """The token vectors of the documents with these ids, by id. Unknown ids are skipped.

        Returns:
            float32 arrays of shape (tokens, dimension), as they are stored: rounded to ``token_precision``, and pooled.
        """
        self._start_reading()
        wanted = one_or_more(ids)
        store = self._collection.store

        def read(snapshot: Snapshot) -> dict[str, FloatArray]:
            keys = store.keys_of(snapshot, wanted)
            found = [id for id in dict.fromkeys(wanted) if id in keys]
            return dict(zip(found, store.embeddings(snapshot, [keys[id] for id in found]), strict=True))

        return self._collection.read_with_retry(read)

    def find(self, filter: Filter | None = None, limit: int | None = None, *, offset: int = 0) -> list[Document]:
        """Documents by their metadata, in the order in which they were added.

        Args:
            filter: see ``search``. None admits every document.
            limit: the largest number of documents to return. None returns all.
            offset: the number of documents to leave out at the beginning.
        """
        self._start_reading()
        condition = compile_filter(filter)
        offset = require_count("offset", offset, 0)
        end = None if limit is None else offset + require_count("limit", limit)

        def read(snapshot: Snapshot) -> list[StoredDocument]:
            store = self._collection.store
            return store.documents(snapshot, store.matching(snapshot, condition)[offset:end])

        return [to_document(document) for document in self._collection.read_with_retry(read)]

    def iterate(self, filter: Filter | None = None, *, batch_size: int = 256) -> Iterator[Document]:
        """Documents by their metadata, one after the other, in memory that does not grow with their number.

        Every document that is in the index from the first to the last step is given. One that is added, replaced or
        deleted meanwhile may be.

        Args:
            filter: see ``search``. None admits every document.
            batch_size: documents that are read together.
        """
        self._start_reading()
        return self._iterate(compile_filter(filter), require_count("batch_size", batch_size))

    def count(self, filter: Filter | None = None) -> int:
        """The number of documents that a filter admits. See ``search``."""
        self._start_reading()
        condition, store = compile_filter(filter), self._collection.store
        return len(self._collection.read_with_retry(lambda snapshot: store.matching(snapshot, condition)))

    def __len__(self) -> int:
        self._start_reading()
        return len(self._collection.snapshot())

    def __contains__(self, id: object) -> bool:
        self._start_reading()
        try:
            wanted = require_unicode("id", id)
        except InvalidInputError:
            return False  # no document can have such an id
        store = self._collection.store
        return self._collection.read_with_retry(lambda snapshot: wanted in store.keys_of(snapshot, [wanted]))

    @property
    def n_tokens(self) -> int:
        """The number of token vectors of all documents."""
        return self._collection.snapshot().n_tokens

    def _iterate(self, condition: Condition | None, batch_size: int) -> Iterator[Document]:
        store, last = self._collection.store, -1

        def next_page(snapshot: Snapshot) -> list[StoredDocument]:
            keys = store.matching(snapshot, condition)
            start = np.searchsorted(keys, last, "right")
            return store.documents(snapshot, keys[start : start + batch_size])

        while page := self._collection.read_with_retry(next_page):
            yield from map(to_document, page)
            last = page[-1].key

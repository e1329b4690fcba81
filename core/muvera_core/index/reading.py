"""The calls that read documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from muvera_core.errors import InvalidInputError
from muvera_core.filters import Condition, compile_filter
from muvera_core.hits import Document, DocumentPage
from muvera_core.index.parts import Filter, IndexParts, one_or_more
from muvera_core.token_embeddings import FloatArray
from muvera_core.validation import require_count, require_unicode


class ReadingCalls(IndexParts):
    """Reads documents."""

    def get(self, ids: str | Sequence[str]) -> list[Document]:
        """The documents with these ids, in the order of the ids. Unknown ids are skipped."""
        self._start_reading()
        return self._engine.get(one_or_more(ids))

    def get_embeddings(self, ids: str | Sequence[str]) -> dict[str, FloatArray]:
        """The token vectors of the documents with these ids, by id. Unknown ids are skipped.

        Returns:
            float32 arrays of shape (tokens, dimension), as they are stored: rounded to ``token_precision``, and pooled.
        """
        self._start_reading()
        return self._engine.get_embeddings(one_or_more(ids))

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
        return self._engine.find(condition, offset, end)

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

    def page(self, filter: Filter | None = None, *, after: str | None = None, limit: int = 256) -> DocumentPage:
        """A part of what ``iterate`` gives, for callers that cannot keep an iterator.

        Args:
            filter: see ``search``. The same for all pages.
            after: ``next`` of the page before. None begins.
            limit: the largest number of documents to return.

        Raises:
            InvalidInputError: ``after`` does not come from a page of this index.
        """
        self._start_reading()
        if after is not None:
            after = require_unicode("after", after)
        return self._engine.page_after(compile_filter(filter), after, require_count("limit", limit))

    def count(self, filter: Filter | None = None) -> int:
        """The number of documents that a filter admits. See ``search``."""
        self._start_reading()
        return self._engine.count(compile_filter(filter))

    def __len__(self) -> int:
        self._start_reading()
        return self._engine.n_documents

    def __contains__(self, id: object) -> bool:
        self._start_reading()
        try:
            wanted = require_unicode("id", id)
        except InvalidInputError:
            return False  # no document can have such an id
        return self._engine.contains(wanted)

    @property
    def n_tokens(self) -> int:
        """The number of token vectors of all documents."""
        return self._engine.n_tokens

    def _iterate(self, condition: Condition | None, batch_size: int) -> Iterator[Document]:
        page = self._engine.page_after(condition, None, batch_size)
        yield from page.documents
        while page.next is not None:
            page = self._engine.page_after(condition, page.next, batch_size)
            yield from page.documents

"""The calls of a vector store that add, read, change and delete documents."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from langchain_muvera.documents import to_document
from langchain_muvera.keywords import names_of, refuse_unknown, refuses_unknown
from muvera_core import IndexCalls
from muvera_core.images import ImageInput
from muvera_core.index import IndexCall, Steps, awaited, steps_of, stepwise

Filter = Mapping[str, Any]


class StoreChanges(VectorStore):
    """Adds, reads, changes and deletes documents."""

    index: IndexCalls

    @stepwise
    @refuses_unknown
    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int = 64,
        force: bool = False,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> Steps[list[str]]:
        """Encode and add documents, all or none. A document replaces the one with the same id.

        A document that the index has with the same text and metadata is left as it is. If only its metadata differs, it
        is not encoded again.

        Args:
            texts: the passages. A text without a visible character, such as an empty page, is skipped, with a
                ``SkippedTextWarning``.
            metadatas: a mapping for each text; see ``muvera_core.metadata`` for the values it can hold.
            ids: a distinct id for each text. A random id is drawn in place of None.
            batch_size: texts per call of the encoder.
            force: encode every text, also those that the index has.
            show_progress: show a bar on standard error.
            **kwargs: refused.

        Returns:
            An id for each text, in order, also for those that were skipped.

        Raises:
            InvalidInputError: an id repeats or is empty, metadata cannot be stored, or lengths differ.
        """
        added: list[str] = yield IndexCall(
            IndexCalls.add,
            texts,
            _drawn(ids),
            metadatas,
            batch_size=batch_size,
            force=force,
            show_progress=show_progress,
        )
        return added

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """See ``add_texts``."""
        return await awaited(self.add_texts, texts, metadatas, **kwargs)

    @stepwise
    def add_documents(self, documents: list[Document], **kwargs: Any) -> Steps[list[str]]:
        """Encode and add documents, all or none. ``ids`` replace the documents' own ids. See ``add_texts``."""
        # LangChain's TimeWeightedVectorStoreRetriever passes on what it has already put into the metadata.
        kwargs.pop("current_time", None)
        texts, kwargs = unpack("add_documents", self.add_texts, documents, kwargs)
        return (yield from steps_of(self.add_texts, texts, **kwargs))

    async def aadd_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """See ``add_documents``."""
        return await awaited(self.add_documents, documents, **kwargs)

    @stepwise
    @refuses_unknown
    def add_images(
        self,
        images: Iterable[ImageInput],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        texts: Iterable[str | None] | None = None,
        batch_size: int = 8,
        force: bool = False,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> Steps[list[str]]:
        """Encode and add images, such as the pages of a document, all or none. See ``MuveraIndex.add_images``.

        The index's encoder must embed images. Questions stay text. The metadata of a document that comes back has the
        path of its image file under "image".

        Args:
            images: each a path, the bytes of an image file, or an image of Pillow. One that cannot be read is skipped,
                with a ``SkippedImageWarning``.
            metadatas: a mapping for each image.
            ids: a distinct id for each image. A random id is drawn in place of None.
            texts: a text for each image, which becomes the ``page_content``. It is not encoded.
            batch_size: images per call of the encoder.
            force: encode every image, also those that the index has.
            show_progress: show a bar on standard error.
            **kwargs: refused.

        Returns:
            An id for each image, in order, also for those that were skipped.

        Raises:
            InvalidInputError: the encoder embeds no images, an item is no image, an id repeats or is empty, metadata
                cannot be stored, or lengths differ.
            MissingExtraError: Pillow is not installed.
        """
        added: list[str] = yield IndexCall(
            IndexCalls.add_images,
            images,
            _drawn(ids),
            texts,
            metadatas,
            batch_size=batch_size,
            force=force,
            show_progress=show_progress,
        )
        return added

    async def aadd_images(
        self,
        images: Iterable[ImageInput],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """See ``add_images``."""
        return await awaited(self.add_images, images, metadatas, **kwargs)

    @stepwise
    def get_by_ids(self, ids: Sequence[str], /) -> Steps[list[Document]]:
        """The documents with these ids, in the order of the ids. Unknown ids are skipped."""
        found = yield IndexCall(IndexCalls.get, list(ids))
        return [to_document(document) for document in found]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """See ``get_by_ids``."""
        return await awaited(self.get_by_ids, ids)

    @stepwise
    @refuses_unknown
    def count(self, filter: Filter | None = None) -> Steps[int]:
        """The number of documents that a filter admits. Without a filter, of all documents."""
        n: int = yield IndexCall(IndexCalls.count, filter)
        return n

    async def acount(self, filter: Filter | None = None) -> int:
        """See ``count``."""
        return await awaited(self.count, filter)

    @stepwise
    @refuses_unknown
    def update_metadata(
        self,
        ids: str | Sequence[str],
        metadatas: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        replace: bool = False,
    ) -> Steps[int]:
        """Change the metadata of documents, all or none, without encoding them again.

        Args:
            ids: one or more ids. Unknown ids are skipped.
            metadatas: one mapping for all documents, or one for each id.
            replace: replace the present metadata. Otherwise the mapping's keys are added to it, or replaced in it.

        Returns:
            The number of documents whose metadata changed.

        Raises:
            InvalidInputError: an id repeats, metadata cannot be stored, or lengths differ.
        """
        n: int = yield IndexCall(IndexCalls.update_metadata, ids, metadatas, replace=replace)
        return n

    async def aupdate_metadata(
        self,
        ids: str | Sequence[str],
        metadatas: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        **kwargs: Any,
    ) -> int:
        """See ``update_metadata``."""
        return await awaited(self.update_metadata, ids, metadatas, **kwargs)

    @stepwise
    @refuses_unknown
    def delete(self, ids: list[str] | None = None, *, filter: Filter | None = None, **kwargs: Any) -> Steps[bool]:
        """Delete documents by id, by metadata, or by both. Without arguments, delete **all** documents.

        Deleting everything without arguments is LangChain's rule. ``clear`` says it more plainly.

        Args:
            ids: the ids. Unknown ids are skipped.
            filter: conditions on metadata. With ``ids`` too, a document is deleted if it has one of the ids and the
                filter admits it.
            **kwargs: refused.

        Returns:
            Always True.

        Raises:
            InvalidInputError: the filter is empty or invalid.
        """
        if ids is None and filter is None:
            yield from steps_of(self.clear)
        else:
            yield IndexCall(IndexCalls.delete, ids, filter=filter)
        return True

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """See ``delete``."""
        return await awaited(self.delete, ids, **kwargs)

    @stepwise
    def clear(self) -> Steps[int]:
        """Delete all documents. Returns their number."""
        n: int = yield IndexCall(IndexCalls.clear)
        return n

    async def aclear(self) -> int:
        """See ``clear``."""
        return await awaited(self.clear)


def _drawn(ids: Iterable[str | None] | None) -> Iterable[str] | None:
    """The ids, with a random one in place of each None."""
    if ids is None or isinstance(ids, str):
        return ids
    return [uuid.uuid4().hex if id is None else id for id in ids]


def unpack(
    name: str, add: Callable[..., Any], documents: Iterable[Document], kwargs: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """The texts of documents, and the keywords with which ``add`` adds them.

    Args:
        name: the call that was given the documents.
        add: the call that adds texts.
        documents: the documents.
        kwargs: keywords of the call. ``ids`` replace the documents' own ids.
    """
    refuse_unknown(f"MuveraVectorStore.{name}", kwargs, set(names_of(add)) - {"texts", "embedding", "metadatas"})
    documents = list(documents)
    ids = kwargs.get("ids")
    if ids is None:
        ids = [document.id or None for document in documents]
    metadatas = [document.metadata for document in documents]
    return [document.page_content for document in documents], {**kwargs, "ids": ids, "metadatas": metadatas}

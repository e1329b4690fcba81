"""The calls that add, change and delete documents."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from muvera_core.collection import (
    EncodedImages,
    EncodedTexts,
    GivenTokens,
    Record,
    image_problem,
    warn_of_images,
    warn_of_skipped_images,
)
from muvera_core.encoders import require_image_encoder, warn
from muvera_core.errors import InvalidInputError, SkippedTextWarning
from muvera_core.filters import compile_filter
from muvera_core.images import ImageInput, ImageSource, UnreadableImageError, require_images
from muvera_core.index.parts import Filter, IndexParts, one_or_more
from muvera_core.metadata import require_metadatas
from muvera_core.token_embeddings import TokenEmbeddings, require_dimension
from muvera_core.validation import (
    counted,
    has_visible_text,
    repaired,
    require_count,
    require_ids,
    require_iterable,
    require_length,
    require_string,
    require_strings,
    shown,
)

# Most ids that a warning lists.
_SHOWN_IDS = 10


class WritingCalls(IndexParts):
    """Adds, changes and deletes documents."""

    def add(
        self,
        texts: Iterable[str],
        ids: Iterable[str] | None = None,
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        batch_size: int = 64,
        force: bool = False,
        show_progress: bool = False,
    ) -> list[str]:
        """Encode and add documents, all or none. A document replaces the one with the same id.

        A document that the index has with the same text and metadata is left as it is. If only its metadata differs, it
        is not encoded again.

        Args:
            texts: the passages, from a list or any other iterable. A text without a visible character is skipped, with
                a ``SkippedTextWarning``; what is stored under its id stays. Half of a surrogate pair, which is not
                Unicode text, becomes U+FFFD.
            ids: a distinct id for each text. None draws random ids.
            metadatas: a mapping for each text; see ``muvera_core.metadata`` for the values it can hold. None stands for
                empty ones.
            batch_size: texts per call of the encoder. Equal texts are encoded once, and texts of similar length
                together.
            force: encode every text, also those that the index has.
            show_progress: show a bar on standard error.

        Returns:
            An id for each text, in order, also for those that were skipped.

        Raises:
            InvalidInputError: an id repeats or is empty, metadata cannot be stored, or lengths differ.
            EncoderError: the encoder returned something unusable.
            ReadOnlyIndexError: the index was opened for reading.
        """
        records = _records(require_strings("texts", texts), ids, metadatas)
        batch_size = require_count("batch_size", batch_size)
        visible: list[Record] = []
        blank: list[Record] = []
        for record in records:
            (visible if has_visible_text(record.text or "") else blank).append(record)
        if blank:
            _warn_of_skipped([record.id for record in blank], len(records))
        tokens = EncodedTexts(self._encoder, visible, self._reduction, batch_size, show_progress)
        self._engine.add(visible, tokens, skip_unchanged=not force)
        return [record.id for record in records]

    def add_images(
        self,
        images: Iterable[ImageInput],
        ids: Iterable[str] | None = None,
        texts: Iterable[str | None] | None = None,
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        batch_size: int = 8,
        force: bool = False,
        show_progress: bool = False,
    ) -> list[str]:
        """Encode and add images, such as the pages of a document, all or none. One image makes one document.

        Questions stay text. The index notes where an image is, its size and a digest of its content, and keeps its
        token vectors. It has no copy of the image. An image that the index has under the same id, by its digest, is not
        encoded again; its text, metadata and path are updated.

        Args:
            images: each a path, the bytes of an image file, or an image of Pillow. Files are read when they are
                encoded, so that the pixels of ``batch_size`` of them are in memory together. An image is turned upright
                as its Exif data says, and converted to RGB; what is transparent becomes white. One that cannot be read
                is skipped, with a ``SkippedImageWarning``; what is stored under its id stays. Of a file with several
                pages the first one is added, with the same warning.
            ids: a distinct id for each image. None draws random ids.
            texts: a text to show for each image, such as what OCR reads. It is stored and not encoded. None has none.
            metadatas: a mapping for each image; see ``add``.
            batch_size: images per call of the encoder.
            force: encode every image, also those that the index has.
            show_progress: show a bar on standard error.

        Returns:
            An id for each image, in order, also for those that were skipped.

        Raises:
            InvalidInputError: the index's encoder embeds no images, an item is no image, an id repeats or is empty,
                metadata cannot be stored, or lengths differ.
            MissingExtraError: Pillow is not installed.
            EncoderError: the encoder returned something unusable.
            ReadOnlyIndexError: the index was opened for reading.
        """
        encoder = require_image_encoder(self._encoder)
        given, batch_size = require_images(images), require_count("batch_size", batch_size)
        shown_texts = [None] * len(given) if texts is None else _texts_or_none(texts)
        records = _records(shown_texts, ids, metadatas, len(given))
        self._engine.require_writable()
        readable, sources = _read_headers(records, given)
        tokens = EncodedImages(encoder, readable, sources, self._reduction, batch_size, show_progress)
        self._engine.add(readable, tokens, skip_unchanged=not force)
        return [record.id for record in records]

    def add_embeddings(
        self,
        token_embeddings: TokenEmbeddings | Sequence[npt.ArrayLike],
        ids: Iterable[str] | None = None,
        texts: Iterable[str] | None = None,
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
    ) -> list[str]:
        """Add documents by their token embeddings, all or none. A document replaces the one with the same id.

        Args:
            token_embeddings: made by the index's encoder. Or a list of arrays of shape (tokens, dimension). Those that
                are in the memory of the GPU that the index is open on are encoded for stage one there.
            ids: a distinct id for each document. None draws random ids.
            texts: the passages that the embeddings were made from. Hits return them.
            metadatas: a mapping for each document; see ``add``.

        Raises:
            InvalidInputError: the same cases as for ``add``, or a vector holds NaN or infinity.
            DimensionMismatchError: the vectors have another width than the index's.
        """
        if not isinstance(token_embeddings, TokenEmbeddings):
            token_embeddings = TokenEmbeddings.from_list(token_embeddings, keep_on_gpu=True)
        require_dimension(token_embeddings, self._encoder.dimension, "this index")
        n = len(token_embeddings)
        records = _records([None] * n if texts is None else require_strings("texts", texts), ids, metadatas, n)
        tokens = GivenTokens(self._reduction.apply(token_embeddings))
        self._engine.add(records, tokens, skip_unchanged=False)
        return [record.id for record in records]

    def update_metadata(
        self,
        ids: str | Sequence[str],
        metadatas: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        replace: bool = False,
    ) -> int:
        """Change the metadata of documents, all or none. Nothing is encoded again.

        Args:
            ids: one or more ids. Unknown ids are skipped.
            metadatas: one mapping for all documents, or one for each id.
            replace: replace the present metadata. Otherwise the mapping's keys are added to it, or replaced in it.

        Returns:
            The number of documents whose metadata changed.

        Raises:
            InvalidInputError: an id repeats, metadata cannot be stored, or lengths differ.
            ReadOnlyIndexError: the index was opened for reading.
        """
        wanted = one_or_more(ids)
        wanted = require_ids(wanted, len(wanted))
        each = [metadatas] * len(wanted) if isinstance(metadatas, Mapping) else metadatas
        texts = require_metadatas(each, len(wanted))
        return self._engine.update_metadata(
            {id: json.loads(text) for id, text in zip(wanted, texts, strict=True)}, replace=replace
        )

    def delete(self, ids: str | Sequence[str] | None = None, *, filter: Filter | None = None) -> int:
        """Delete documents by id, by metadata, or by both.

        Args:
            ids: one or more ids. Unknown ids are skipped.
            filter: see ``search``. With ``ids`` too, a document is deleted if it has one of the ids and the filter
                admits it.

        Returns:
            The number of deleted documents.

        Raises:
            InvalidInputError: neither argument is given, or the filter is empty or invalid. ``clear`` deletes
                everything.
        """
        condition = compile_filter(filter)
        if filter is not None and condition is None:
            raise InvalidInputError("an empty filter admits every document: to delete all of them call clear()")
        if ids is None and filter is None:
            raise InvalidInputError("delete needs ids or a filter; to delete every document call clear()")
        wanted = None if ids is None else one_or_more(ids)
        return self._engine.delete(wanted, condition)

    def clear(self) -> int:
        """Delete every document. Returns their number."""
        return self._engine.delete(None, None)


def _records(
    texts: Sequence[str | None],
    ids: Iterable[str] | None,
    metadatas: Iterable[Mapping[str, Any] | None] | None,
    n: int | None = None,
) -> list[Record]:
    """The checked records of documents to add. There are ``n`` of them, or as many as there are texts."""
    n = len(texts) if n is None else n
    require_length("texts", texts, n)
    checked_ids = require_ids(None if ids is None else require_iterable("ids", ids), n)
    listed = None if metadatas is None else require_iterable("metadatas", metadatas)
    return [Record(*parts) for parts in zip(checked_ids, texts, require_metadatas(listed, n), strict=True)]


def _texts_or_none(texts: Iterable[str | None]) -> list[str | None]:
    listed = require_iterable("texts", texts)
    return [None if text is None else repaired(require_string(f"texts[{i}]", text)) for i, text in enumerate(listed)]


def _read_headers(records: Sequence[Record], images: Sequence[ImageInput]) -> tuple[list[Record], list[ImageSource]]:
    """The records of images that can be read, and their sources. Warns about the others."""
    readable, sources, skipped, left_out = [], [], [], []
    for record, image in zip(records, images, strict=True):
        path = image if isinstance(image, str | os.PathLike) else None
        try:
            source = ImageSource.of(image)
        except UnreadableImageError as error:
            skipped.append(image_problem(record.id, path, str(error)))
            continue
        readable.append(replace(record, image=source.record))
        sources.append(source)
        if source.n_left_out:
            left_out.append(image_problem(record.id, path, f"{counted(source.n_left_out, 'page')} after the first"))
    warn_of_skipped_images(skipped)
    warn_of_images(left_out, "a document has one page, so these were left out: give each page as an image")
    return readable, sources


def _warn_of_skipped(ids: Sequence[str], n: int) -> None:
    shown_ids = ", ".join(map(shown, ids[:_SHOWN_IDS])) + (", …" if len(ids) > _SHOWN_IDS else "")
    warn(
        f"skipped {len(ids)} of {counted(n, 'text')}, without a visible character to match: {shown_ids}",
        SkippedTextWarning,
    )

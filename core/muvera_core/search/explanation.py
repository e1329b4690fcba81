"""Why a document was found: the best match of each query token, and the similarity of each part of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from muvera_core.collection import Collection
from muvera_core.encoders import ImageEncoder, TokenEncoder, is_image_encoder
from muvera_core.errors import EncoderError, InvalidInputError, MissingExtraError
from muvera_core.hits import TokenMatch
from muvera_core.images import ImageRecord, UnreadableImageError, read_again
from muvera_core.storage import Snapshot, StoredDocument
from muvera_core.token_embeddings import FloatArray, IntArray
from muvera_core.validation import require_encoded

if TYPE_CHECKING:
    from PIL.Image import Image


def explain(collection: Collection, encoder: TokenEncoder, query: str, id: str) -> list[TokenMatch]:
    """See ``MuveraIndex.explain``.

    A pooled token stands for several tokens of the document. A match reports the pooled token's similarity, and the
    place of the member that is nearest to the query token. To find the members, or the tokens that pruning kept, the
    document is encoded again.
    """
    query_tokens = _encode_query(encoder, query)
    document, tokens = read_document(collection, id)
    similarities = query_tokens @ tokens.T
    best: IntArray = similarities.argmax(axis=1)

    def members(n_tokens: int, encode: Callable[[], FloatArray | None]) -> IntArray | None:
        """The place of each match among the document's ``n_tokens`` tokens. None if it cannot be known."""
        return collection.manifest.reduction.places(query_tokens, tokens, best, n_tokens, encode)

    text, record = document.text, document.image
    spans = patches = places = None
    if record is not None:
        if is_image_encoder(encoder):
            patches = _patches_of(encoder, record)
            places = members(len(patches), lambda: _encode_image(encoder, record))
    elif text is not None:
        spans = encoder.document_spans(text)
        places = members(len(spans), lambda: _encode_text(encoder, text))
    matches = []
    for i, (start, end) in enumerate(encoder.query_spans(query).tolist()):
        token = span = patch = None
        if places is not None and spans is not None and text is not None:
            first, last = spans[places[i]].tolist()
            token, span = text[first:last], (first, last)
        if places is not None and patches is not None:
            row, column = patches[places[i]].tolist()
            patch = (row, column) if row >= 0 else None
        similarity = float(similarities[i, best[i]])
        matches.append(TokenMatch(query[start:end], (start, end), token, span, similarity, patch))
    return matches


def similarity_maps(collection: Collection, encoder: TokenEncoder, query: str, id: str) -> FloatArray:
    """See ``MuveraIndex.similarity_maps``."""
    query_tokens = _encode_query(encoder, query)
    document, tokens = read_document(collection, id)
    record = document.image
    if record is None:
        raise InvalidInputError(f"document {id!r} was not added as an image: call explain, which gives its words")
    if not is_image_encoder(encoder):
        raise InvalidInputError("the index's encoder embeds no images: open the index with one that does")
    patches = _patches_of(encoder, record)
    if not collection.manifest.reduction.keeps_all:
        tokens = require_encoded(encoder.encode_images([read_image(document)]), 1, encoder.dimension).vectors
    if len(patches) != len(tokens):
        raise InvalidInputError(
            f"document {id!r} has {len(tokens)} token vectors, but the encoder gives an image of "
            f"{record.width} x {record.height} pixels {len(patches)}: its parts are not known"
        )
    is_patch = (patches >= 0).all(axis=1)
    if not is_patch.any():
        raise InvalidInputError("the index's encoder does not say which part of an image its tokens stand for")
    rows, columns = patches[is_patch].T
    n_rows, n_columns = int(rows.max()) + 1, int(columns.max()) + 1
    maps: FloatArray = np.full((n_rows * n_columns, len(query_tokens)), -np.inf, dtype=np.float32)
    np.maximum.at(maps, rows * n_columns + columns, tokens[is_patch] @ query_tokens.T)
    maps[np.isneginf(maps)] = np.nan
    return maps.T.reshape(-1, n_rows, n_columns)


def read_document(collection: Collection, id: str) -> tuple[StoredDocument, FloatArray]:
    """A document and its token vectors. Raises InvalidInputError if there is none with this id."""

    def read(snapshot: Snapshot) -> tuple[StoredDocument, FloatArray]:
        found = collection.store.documents_by_id(snapshot, [id])
        if not found:
            raise InvalidInputError(f"there is no document with id {id!r}")
        return found[0], collection.store.embeddings(snapshot, [found[0].key]).vectors

    return collection.read_with_retry(read)


def read_image(document: StoredDocument) -> Image:
    """A document's image, as it was when it was added. Raises InvalidInputError if it cannot be read any more."""
    assert document.image is not None
    try:
        return read_again(document.image)
    except UnreadableImageError as error:
        path = "" if document.image.path is None else f"{document.image.path}: "
        raise InvalidInputError(
            f"the image of document {document.id!r} cannot be read again ({path}{error}): add it again from a file"
        ) from error


def _patches_of(encoder: ImageEncoder, record: ImageRecord) -> IntArray:
    """Row and column of each token of an image, int64, shape (tokens, 2). Raises EncoderError if they are invalid."""
    patches = np.asarray(encoder.image_patches(*record.size))
    if patches.ndim != 2 or patches.shape[1] != 2 or patches.dtype.kind != "i":
        raise EncoderError(
            f"image_patches of the encoder returned {patches.dtype} of shape {patches.shape}, expected integers of "
            "shape (tokens, 2): correct the encoder"
        )
    return patches.astype(np.int64, copy=False)


def _encode_query(encoder: TokenEncoder, query: str) -> FloatArray:
    return require_encoded(encoder.encode_queries([query]), 1, encoder.dimension).vectors


def _encode_text(encoder: TokenEncoder, text: str) -> FloatArray:
    return require_encoded(encoder.encode_documents([text]), 1, encoder.dimension).vectors


def _encode_image(encoder: ImageEncoder, record: ImageRecord) -> FloatArray | None:
    """An image's token vectors before pooling. None if it cannot be read any more."""
    try:
        image = read_again(record)
    except (UnreadableImageError, MissingExtraError):
        return None
    return require_encoded(encoder.encode_images([image]), 1, encoder.dimension).vectors

"""Calls of a service that are no methods of an index: what Python writes as ``len(index)``, and its encoder's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from muvera_core.calibration import Calibration
from muvera_core.encoders import describe_encoder, is_image_encoder, require_image_encoder
from muvera_core.images import ImageInput, ImageSource
from muvera_core.index import IndexCalls
from muvera_core.lexical import LexicalConfig
from muvera_core.storage import TokenPrecision
from muvera_core.token_embeddings import IntArray, TokenEmbeddings
from muvera_core.validation import require_count


@dataclass(frozen=True)
class EncoderInfo:
    """Facts about an index's encoder.

    Attributes:
        name: name of its class.
        fingerprint: identifies the model and its settings.
        dimension: width of a token vector.
        settings: the arguments that it was made with, as far as it tells them.
        embeds_images: whether it embeds images.
    """

    name: str
    fingerprint: str
    dimension: int
    settings: dict[str, Any]
    embeds_images: bool = False


@dataclass(frozen=True)
class ServiceInfo:
    """Facts about a service and its index.

    Attributes:
        documents: number of documents.
        tokens: number of token vectors of all documents.
        encoder: the index's encoder.
        token_precision: how token vectors are stored.
        pool_factor: about one in ``pool_factor`` tokens of a document is stored.
        keep_tokens: the share of a document's tokens that is kept before they are pooled.
        lexical: settings of the word index. None if there is none.
        calibration: what was learned about scores, by mode of search.
        device: the device that searches use.
        version: the service's version of muvera-core.
    """

    documents: int
    tokens: int
    encoder: EncoderInfo
    token_precision: TokenPrecision
    pool_factor: int
    keep_tokens: float
    lexical: LexicalConfig | None
    calibration: Mapping[str, Calibration]
    device: str
    version: str


def info(index: IndexCalls) -> ServiceInfo:
    """Facts about the service and its index."""
    encoder = index.encoder
    return ServiceInfo(
        len(index),
        index.n_tokens,
        EncoderInfo(
            fingerprint=encoder.fingerprint,
            dimension=encoder.dimension,
            embeds_images=is_image_encoder(encoder),
            **describe_encoder(encoder),
        ),
        index.token_precision,
        index.pool_factor,
        index.keep_tokens,
        index.lexical,
        index.calibration,
        index.device,
        version("muvera-core"),
    )


def length(index: IndexCalls) -> int:
    """The number of documents."""
    return len(index)


def contains(index: IndexCalls, id: str) -> bool:
    """Whether the index has a document.

    Args:
        index: the index.
        id: the document's id.
    """
    return id in index


def n_tokens(index: IndexCalls) -> int:
    """The number of token vectors of all documents."""
    return index.n_tokens


def encode_queries(index: IndexCalls, texts: Sequence[str]) -> TokenEmbeddings:
    """Token vectors of queries, by the index's encoder.

    Args:
        index: the index.
        texts: the queries.
    """
    return index.encoder.encode_queries(texts)


def encode_documents(index: IndexCalls, texts: Sequence[str]) -> TokenEmbeddings:
    """Token vectors of passages, by the index's encoder. Nothing is stored.

    Args:
        index: the index.
        texts: the passages.
    """
    return index.encoder.encode_documents(texts)


def query_spans(index: IndexCalls, text: str) -> IntArray:
    """Start and end character of each token of a query, shape (tokens, 2).

    Args:
        index: the index.
        text: the query.
    """
    return index.encoder.query_spans(text)


def document_spans(index: IndexCalls, text: str) -> IntArray:
    """Start and end character of each token of a passage, shape (tokens, 2).

    Args:
        index: the index.
        text: the passage.
    """
    return index.encoder.document_spans(text)


def encode_images(index: IndexCalls, images: Sequence[ImageInput]) -> TokenEmbeddings:
    """Token vectors of images, by the index's encoder. Nothing is stored.

    Args:
        index: the index.
        images: the images.
    """
    encoder = require_image_encoder(index.encoder)
    return encoder.encode_images([ImageSource.of(image).load() for image in images])


def image_patches(index: IndexCalls, width: int, height: int) -> IntArray:
    """Row and column of the part of an image that each of its tokens stands for, shape (tokens, 2).

    Args:
        index: the index.
        width: the image's width in pixels.
        height: its height in pixels.
    """
    return require_image_encoder(index.encoder).image_patches(
        require_count("width", width), require_count("height", height)
    )

"""The documents, hits and token matches that an index returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Document:
    """A document of an index.

    Attributes:
        id: the document's id.
        text: the passage; None if only token embeddings, or only an image, were added.
        metadata: the metadata that was added with the document.
        image: absolute path of the image that was added, where it was then. None if it was not given as a file. The
            index has no copy of it. If images were moved, add them again: nothing is encoded, and the new paths are
            stored.
        image_size: width and height of the image in pixels, upright. None if the document was not added as an image.
        image_digest: tells whether an image is the same: a hash of the file or, if none was read, of the pixels.
    """

    id: str
    text: str | None
    metadata: dict[str, Any] = field(default_factory=dict)
    image: str | None = field(default=None, kw_only=True)
    image_size: tuple[int, int] | None = field(default=None, kw_only=True)
    image_digest: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class DocumentPage:
    """Some of an index's documents, and where the others go on.

    Attributes:
        documents: the documents.
        next: what the next page is asked for with. None if there are no further documents.
    """

    documents: list[Document]
    next: str | None


@dataclass(frozen=True)
class Passage:
    """A part of a document's text.

    Attributes:
        text: the part.
        start: place of its first character in the document's text.
        end: place behind its last character.
    """

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Hit(Document):
    """A document that a search found.

    Attributes:
        score: raw MaxSim: each query token's highest inner product with a token of the document, summed over the
            query's tokens. Comparable only within one query. In mode "hybrid" BM25 has its share in it, brought to
            MaxSim's scale; in mode "lexical" it is BM25.
        normalized_score: the mean per query token, clipped to [0, 1]. Comparable between queries. In mode "lexical" the
            share of the highest BM25 that a document could have for the query.
        relevance: what ``min_score`` is compared with: the probability that the document is relevant, if the index was
            calibrated for this mode of search, or else ``normalized_score``.
        lexical_score: BM25, at least 0. None in mode "late".
        passage: the part of the text that matched best; all of a short text. None unless the search was asked for it,
            and if it cannot be known: the document has no text, or was added as an image; or the text is long, and its
            tokens were merged (``pool_factor``), dropped (``keep_tokens``) or made by others than the index's encoder.
        judged_score: the cross-encoder's score of the text, on its own scale. None if no cross-encoder judged it.
    """

    score: float = 0.0
    normalized_score: float = 0.0
    relevance: float = 0.0
    lexical_score: float | None = None
    passage: Passage | None = None
    judged_score: float | None = None


class Hits(list[Hit]):
    """The hits of a query, with what is missing from them.

    Attributes:
        missing_shards: numbers of the shards that did not answer. Empty if the hits are complete.
    """

    def __init__(self, hits: Iterable[Hit] = (), missing_shards: tuple[int, ...] = ()) -> None:
        super().__init__(hits)
        self.missing_shards = missing_shards


@dataclass(frozen=True)
class TokenMatch:
    """A query token and the document token that matches it best: one part of why a document was found.

    Attributes:
        query_token: the token's characters in the query; empty for a marker such as [CLS] or [MASK].
        query_span: start and end of these characters in the query.
        document_token: the token's characters in the document; empty for a marker, None if they are unknown.
        document_span: start and end of these characters in the document's text; None if they are unknown.
        similarity: inner product of the two token vectors.
        patch: row and column of the part of the image that the document's token stands for, from the top left. None for
            a document without an image, for a token that stands for no part of it, and if the part is unknown.
    """

    query_token: str
    query_span: tuple[int, int]
    document_token: str | None
    document_span: tuple[int, int] | None
    similarity: float
    patch: tuple[int, int] | None = None

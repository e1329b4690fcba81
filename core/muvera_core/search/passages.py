"""Adds to hits the part of their text that matched best, from the token vectors that are stored anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from muvera_core.collection import Collection
from muvera_core.encoders import PrecomputedEmbeddings, TokenEncoder
from muvera_core.hits import Hit, Passage
from muvera_core.search.best_window import best_window, whole_passage
from muvera_core.storage import Snapshot
from muvera_core.token_embeddings import FloatArray, IntArray

# Documents whose tokens' places are kept while the queries of a batch are answered, which often share documents.
_TEXTS_KEPT = 128


def add_passages(
    collection: Collection,
    encoder: TokenEncoder,
    snapshot: Snapshot,
    queries: Sequence[FloatArray],
    hits: Sequence[Sequence[Hit]],
) -> list[list[Hit]]:
    """The hits with ``passage``, the part of each text that matched best; see ``best_window``.

    A short text is its own passage. For a longer one, the query's tokens are compared with the document's stored tokens
    again. Nothing is encoded a second time; the text is tokenized again, to know the tokens' places.

    A passage is None if the places of a document's tokens are not known: it has no text, or was added as an image; or
    its text is long, and its tokens were merged (``pool_factor``), some were dropped (``keep_tokens``), or they are not
    those that ``encoder`` gives this text. Only encoding the text again would tell which tokens were merged or dropped.

    Args:
        collection: the documents.
        encoder: the index's encoder.
        snapshot: the documents that were searched.
        queries: token vectors of each query, float32, shape (tokens, dimension).
        hits: of each query.

    Raises:
        StaleError: a document was deleted after that snapshot.
    """

    @lru_cache(maxsize=_TEXTS_KEPT)
    def spans_of(text: str) -> IntArray:
        return encoder.document_spans(text)

    knows_places = collection.manifest.reduction.keeps_all and not isinstance(encoder, PrecomputedEmbeddings)

    def passage_of(query: FloatArray, hit: Hit) -> Passage | None:
        if hit.text is None or hit.image_size is not None:
            return None
        whole = whole_passage(hit.text)
        if whole is not None or not knows_places:
            return whole
        key = collection.store.keys_of(snapshot, [hit.id])[hit.id]
        tokens, spans = collection.store.embeddings(snapshot, [key]).vectors, spans_of(hit.text)
        return best_window(hit.text, spans, query @ tokens.T) if len(spans) == len(tokens) else None

    return [
        [replace(hit, passage=passage_of(query, hit)) for hit in of_query]
        for query, of_query in zip(queries, hits, strict=True)
    ]

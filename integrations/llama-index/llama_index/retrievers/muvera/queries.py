"""Answers a LlamaIndex ``VectorStoreQuery`` by a search of the index."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.retrievers.muvera.filters import Filter, to_filter
from llama_index.retrievers.muvera.names import one_or_more, refuse_unknown
from llama_index.retrievers.muvera.nodes import REF_DOC_ID_FIELD, is_plain, require_passage

from muvera_core import Hit, IndexCalls
from muvera_core.errors import InvalidInputError
from muvera_core.index import IndexCall, Steps
from muvera_core.search import SearchMode
from muvera_core.validation import require_count, require_share, shown

logger = logging.getLogger(__name__)

_MMR_FETCH_K = 50
_MMR_FETCH_PER_HIT = 4
_LATE = ("n_candidates", "exact", "query_reduction", "min_score", "passage")
_OPTIONS = {
    VectorStoreQueryMode.DEFAULT: _LATE,
    VectorStoreQueryMode.HYBRID: (*_LATE, "lexical_weight", "fusion"),
    VectorStoreQueryMode.TEXT_SEARCH: ("min_score", "passage"),
    VectorStoreQueryMode.SPARSE: ("min_score", "passage"),
    VectorStoreQueryMode.MMR: ("mmr_threshold", "mmr_prefetch_k", "min_score", "method", "n_neighbors", "mode"),
}
_CORE_MODES: dict[VectorStoreQueryMode, SearchMode] = {
    VectorStoreQueryMode.DEFAULT: "late",
    VectorStoreQueryMode.HYBRID: "hybrid",
    VectorStoreQueryMode.TEXT_SEARCH: "lexical",
    VectorStoreQueryMode.SPARSE: "lexical",
}
# Fields that would change a query's meaning, but have none here. LlamaIndex leaves them out unless a user sets them.
_MEANINGLESS = {
    "sparse_top_k": "BM25 ranks all nodes, so it needs no number of its own",
    "output_fields": "nodes are returned whole",
    "embedding_field": "an index has one set of vectors",
}
# Fields that have a meaning in one mode.
_OF_MODE = {
    "alpha": VectorStoreQueryMode.HYBRID,
    "hybrid_top_k": VectorStoreQueryMode.HYBRID,
    "mmr_threshold": VectorStoreQueryMode.MMR,
}
_FIELDS = {
    name: f"set {field} of the VectorStoreQuery, or of the retriever"
    for field, names in {
        "filters": ("filter", "filters", "where"),
        "node_ids": ("ids", "node_ids"),
        "doc_ids": ("doc_ids",),
        "similarity_top_k": ("k", "top_k", "similarity_top_k"),
        "alpha": ("alpha",),
        "hybrid_top_k": ("hybrid_top_k",),
        "mode": ("mode", "search_mode", "vector_store_query_mode"),
    }.items()
    for name in names
}
_NO_TEXT = (
    "the query has neither query_str nor query_embedding. Parts of LlamaIndex, such as a DocumentSummaryIndex, ask "
    "with a vector only: set store.is_embedding_query = True, and give them embed_model=MuveraEmbedding()"
)


class Admitted(NamedTuple):
    """The documents that a query admits: those that the filter admits and that have one of the ids."""

    filter: Filter | None
    ids: list[str] | None


def answer(query: VectorStoreQuery, options: Mapping[str, Any]) -> Steps[list[Hit]]:
    """The hits of a query, best first.

    Args:
        query: the query.
        options: what a user passes beside the query, by name.

    Raises:
        InvalidInputError: the query or an option cannot be used, or has no meaning here.
    """
    mode = _mode_of(query)
    _refuse_meaningless(query, mode)
    refuse_unknown(f"a query in mode {mode.value!r}", options, *_OPTIONS[mode], aliases=_FIELDS)
    k = require_count("similarity_top_k", query.similarity_top_k)
    admitted = yield from _admitted(query)
    if query.query_str is None:
        return (yield from _by_vector(query, k, admitted, mode, options))
    hits: list[Hit] = yield _call(query, query.query_str, k, admitted, mode, options)
    return hits


def _call(
    query: VectorStoreQuery,
    text: str,
    k: int,
    admitted: Admitted,
    mode: VectorStoreQueryMode,
    options: Mapping[str, Any],
) -> IndexCall:
    """The search for a query's text."""
    if mode == VectorStoreQueryMode.MMR:
        return _diverse(query, text, k, admitted, options)
    if query.hybrid_top_k is not None:
        k = require_count("hybrid_top_k", query.hybrid_top_k)
    passage = require_passage("passage", options.get("passage"))
    return IndexCall(
        IndexCalls.search,
        text,
        k,
        mode=_CORE_MODES[mode],
        with_passages=passage is not None,
        **_weight(query, options),
        **admitted._asdict(),
        **{name: value for name, value in options.items() if name != "passage"},
    )


def _weight(query: VectorStoreQuery, options: Mapping[str, Any]) -> dict[str, Any]:
    """BM25's share, from the query's ``alpha``, which is that of the vectors."""
    if query.alpha is None:
        return {}
    if options.get("lexical_weight") is not None:
        raise InvalidInputError("the query sets alpha, which is 1 - lexical_weight: leave one of the two out")
    return {"lexical_weight": 1 - require_share("alpha", query.alpha)}


def _diverse(query: VectorStoreQuery, text: str, k: int, admitted: Admitted, options: Mapping[str, Any]) -> IndexCall:
    given = dict(options)
    threshold = given.pop("mmr_threshold", query.mmr_threshold)
    prefetch_k = given.pop("mmr_prefetch_k", max(_MMR_FETCH_K, _MMR_FETCH_PER_HIT * k))
    return IndexCall(
        IndexCalls.search_diverse,
        text,
        k,
        fetch_k=require_count("mmr_prefetch_k", prefetch_k),
        relevance_weight=0.5 if threshold is None else require_share("mmr_threshold", threshold),
        **admitted._asdict(),
        **given,
    )


def hint_if_empty(hits: Sequence[Hit]) -> Steps[None]:
    """Log why the index may be empty, after a search that found these hits.

    LlamaIndex gives a vector store no sign of the nodes that it drops, so a search is the first chance to tell.
    """
    if not hits and (yield IndexCall(IndexCalls.count)) == 0:
        logger.warning(
            "the index is empty. If an IngestionPipeline should have filled it, put NoEmbedding() last in its "
            "transformations: a pipeline drops nodes without an embedding"
        )


def _by_vector(
    query: VectorStoreQuery,
    k: int,
    admitted: Admitted,
    mode: VectorStoreQueryMode,
    options: Mapping[str, Any],
) -> Steps[list[Hit]]:
    if query.query_embedding is None:
        raise InvalidInputError(_NO_TEXT)
    if mode != VectorStoreQueryMode.DEFAULT:
        raise InvalidInputError(
            f"a query in mode {mode.value!r} needs query_str: a vector alone gives a rough order only"
        )
    refuse_unknown("a query without query_str", options)
    try:
        hits: list[Hit] = yield IndexCall(IndexCalls.search_by_vector, query.query_embedding, k, **admitted._asdict())
    except InvalidInputError as error:
        raise InvalidInputError(
            f"{error}. In LlamaIndex, set query_str; where it asks with a vector only, use "
            "embed_model=MuveraEmbedding() with the index's encoder and FDE settings"
        ) from error
    return hits


def _admitted(query: VectorStoreQuery) -> Steps[Admitted]:
    node_ids = one_or_more(query.node_ids) if query.node_ids else None
    doc_ids = one_or_more(query.doc_ids) if query.doc_ids else []
    documents = (yield IndexCall(IndexCalls.get, doc_ids)) if doc_ids else []
    alone = [document.id for document in documents if is_plain(document)]
    if not alone:
        return Admitted(to_filter(query.filters, ref_doc_ids=doc_ids), node_ids)
    # Documents that were not added as nodes have no field for the document that they are from: they are their own.
    of_nodes = yield IndexCall(IndexCalls.find, {REF_DOC_ID_FIELD: {"$in": doc_ids}})
    ids = [id for id in [document.id for document in of_nodes] + alone if node_ids is None or id in set(node_ids)]
    return Admitted(to_filter(query.filters), ids)


def _mode_of(query: VectorStoreQuery) -> VectorStoreQueryMode:
    mode = next((mode for mode in _OPTIONS if mode == query.mode), None)
    if mode is None:
        given = query.mode.value if isinstance(query.mode, VectorStoreQueryMode) else query.mode
        usable = "'default', 'hybrid', 'text_search', 'sparse' or 'mmr'"
        raise InvalidInputError(f"query mode {shown(given)} is not supported: use {usable}")
    return mode


def _refuse_meaningless(query: VectorStoreQuery, mode: VectorStoreQueryMode) -> None:
    for name, reason in _MEANINGLESS.items():
        if getattr(query, name) is not None:
            raise InvalidInputError(f"the query sets {name}={shown(getattr(query, name))}, but {reason}: leave it out")
    for name, of_mode in _OF_MODE.items():
        if getattr(query, name) is not None and mode != of_mode:
            raise InvalidInputError(
                f"the query sets {name}, but its mode is {mode.value!r}: use mode {of_mode.value!r}"
            )

"""The calls that search, rank and explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np
import numpy.typing as npt

from muvera_core.errors import InvalidInputError
from muvera_core.filters import compile_filter
from muvera_core.hits import Hit, TokenMatch
from muvera_core.images import ImageInput, heat_map
from muvera_core.index.parts import Filter, IndexParts
from muvera_core.search import (
    Fusion,
    SearchMode,
    SearchOptions,
    SearchPlan,
    StageClock,
    diversify,
    explain,
    make_plan,
    read_document,
    read_image,
    search,
    search_by_vector,
    similarity_maps,
    without_question,
)
from muvera_core.token_embeddings import FloatArray, TokenEmbeddings
from muvera_core.validation import (
    has_visible_text,
    repaired,
    require_choice,
    require_count,
    require_encoded,
    require_queries,
    require_share,
    require_string,
    require_strings,
    require_text,
    require_texts,
)

if TYPE_CHECKING:
    from PIL.Image import Image


class SearchingCalls(IndexParts):
    """Finds documents."""

    def search(
        self,
        query: str,
        k: int = 10,
        n_candidates: int | None = None,
        *,
        mode: SearchMode = "late",
        lexical_weight: float | None = None,
        fusion: Fusion = "scores",
        filter: Filter | None = None,
        ids: Sequence[str] | None = None,
        min_score: float | None = None,
        exact: bool = False,
        with_passages: bool = False,
        clock: StageClock | None = None,
    ) -> list[Hit]:
        """The ``k`` documents that match a query best, best first.

        A query without a visible character, which a model may write, matches nothing. With a filter or ids, the first
        ``k`` documents that these admit are returned, in the order in which they were added, with a score of 0.

        Args:
            query: the query's text.
            k: number of hits. A smaller index returns all its documents.
            n_candidates: number of candidates to rerank. More candidates find more and take longer. None takes what
                ``optimize`` chose, or else the larger of 400 and 10 * k.
            mode: what ranks documents. "late" takes late interaction: exact MaxSim. "lexical" takes the words alone:
                BM25 over the stored texts. "hybrid" reranks the candidates of both by MaxSim and adds BM25's share.
            lexical_weight: BM25's share in mode "hybrid", from 0 to 1. None takes what ``optimize`` chose, or else
                chooses for each question: more for words that are rare or that the encoder does not know.
            fusion: how mode "hybrid" joins the two. "scores" adds both scores, brought to one scale. "ranks" is
                reciprocal rank fusion.
            filter: admits documents by their metadata, for example ``{"year": {"$gte": 2020}}``. See
                ``muvera_core.filters``. If the filter admits at least ``k`` documents, ``k`` are returned.
            ids: admits only documents with these ids. Unknown ids are ignored.
            min_score: smallest ``relevance`` of a hit, from 0 to 1.
            exact: score every document. This is slow. It is the reference for every other search.
            with_passages: find the part of each hit's text that matched best: ``hit.passage``.
            clock: collects the time of each stage.

        Raises:
            InvalidInputError: ``k`` or ``n_candidates`` is below 1, ``min_score`` is outside [0, 1], or the filter is
                invalid.
        """
        query = require_string("query", query)
        return self.search_batch(
            [query],
            k,
            n_candidates,
            mode=mode,
            lexical_weight=lexical_weight,
            fusion=fusion,
            filter=filter,
            ids=ids,
            min_score=min_score,
            exact=exact,
            with_passages=with_passages,
            clock=clock,
        )[0]

    def search_batch(
        self,
        queries: Sequence[str],
        k: int = 10,
        n_candidates: int | None = None,
        *,
        mode: SearchMode = "late",
        lexical_weight: float | None = None,
        fusion: Fusion = "scores",
        filter: Filter | None = None,
        ids: Sequence[str] | None = None,
        min_score: float | None = None,
        exact: bool = False,
        with_passages: bool = False,
        clock: StageClock | None = None,
    ) -> list[list[Hit]]:
        """The hits of each query. Scores can differ from those of ``search`` in their last bits."""
        self._start_reading()
        queries = require_strings("queries", queries)
        options = _options(
            k,
            n_candidates,
            filter,
            ids,
            min_score,
            exact=exact,
            mode=mode,
            lexical_weight=lexical_weight,
            fusion=fusion,
            with_passages=with_passages,
        )
        clock = _require_clock(clock)
        is_asked = [has_visible_text(query) for query in queries]
        asked = [query for query, is_one in zip(queries, is_asked, strict=True) if is_one]
        hits: Iterator[list[Hit]] = iter(())
        if asked:
            with clock.stage("encode"):
                encoded = require_encoded(self._encoder.encode_queries(asked), len(asked), self._encoder.dimension)
            hits = iter(search(self._collection, list(encoded), options, clock))
        return [next(hits) if is_one else without_question(self._collection, options) for is_one in is_asked]

    def search_embeddings(
        self,
        query_tokens: npt.ArrayLike | TokenEmbeddings,
        k: int = 10,
        n_candidates: int | None = None,
        *,
        filter: Filter | None = None,
        ids: Sequence[str] | None = None,
        min_score: float | None = None,
        exact: bool = False,
        with_passages: bool = False,
        clock: StageClock | None = None,
    ) -> list[Hit]:
        """The hits of a query that is given by its token embeddings, shape (tokens, dimension). See ``search``."""
        return self.search_embeddings_batch(
            [query_tokens],
            k,
            n_candidates,
            filter=filter,
            ids=ids,
            min_score=min_score,
            exact=exact,
            with_passages=with_passages,
            clock=clock,
        )[0]

    def search_embeddings_batch(
        self,
        query_tokens: TokenEmbeddings | Sequence[npt.ArrayLike | TokenEmbeddings],
        k: int = 10,
        n_candidates: int | None = None,
        *,
        filter: Filter | None = None,
        ids: Sequence[str] | None = None,
        min_score: float | None = None,
        exact: bool = False,
        with_passages: bool = False,
        clock: StageClock | None = None,
    ) -> list[list[Hit]]:
        """The hits of several queries that are given by their token embeddings. See ``search``."""
        self._start_reading()
        queries = require_queries(query_tokens, self._encoder.dimension)
        options = _options(k, n_candidates, filter, ids, min_score, exact=exact, with_passages=with_passages)
        return search(self._collection, queries, options, _require_clock(clock))

    def rerank(
        self, query: str, ids: Sequence[str], k: int | None = None, *, min_score: float | None = None
    ) -> list[Hit]:
        """Rank documents that another search has found, such as BM25, by exact MaxSim with their stored tokens.

        Args:
            query: the query's text.
            ids: the documents' ids. Unknown ids are skipped.
            k: number of hits. None returns all documents.
            min_score: see ``search``.

        Raises:
            InvalidInputError: ``k`` is below 1, or ``min_score`` is outside [0, 1].
        """
        ids = require_texts("ids", ids)
        k = max(1, len(ids)) if k is None else k
        return self.search(query, k, ids=ids, min_score=min_score, exact=True)

    def search_diverse(
        self,
        query: str,
        k: int = 10,
        *,
        fetch_k: int = 50,
        relevance_weight: float = 0.5,
        filter: Filter | None = None,
        ids: Sequence[str] | None = None,
        min_score: float | None = None,
    ) -> list[Hit]:
        """Hits that match a query well and differ from one another, by maximal marginal relevance.

        The similarity of two documents is the cosine of their FDEs. Among the hits of one query it agrees with their
        late-interaction similarity (correlation .9), whose cost would grow with the square of their length.

        Args:
            query: the query's text.
            k: number of hits. They are returned in the order in which they are chosen.
            fetch_k: number of best hits to choose from. At least ``k`` are taken.
            relevance_weight: from 0, which looks at diversity only, to 1, which looks at relevance only.
            filter: see ``search``.
            ids: see ``search``.
            min_score: see ``search``.

        Raises:
            InvalidInputError: the same cases as for ``search``, or ``relevance_weight`` is outside [0, 1].
        """
        relevance_weight = require_share("relevance_weight", relevance_weight)
        k, fetch_k = require_count("k", k), require_count("fetch_k", fetch_k)
        hits = self.search(query, max(k, fetch_k), filter=filter, ids=ids, min_score=min_score)
        return diversify(self._collection, hits, k, relevance_weight)

    def search_by_vector(
        self,
        vector: npt.ArrayLike,
        k: int = 10,
        *,
        filter: Filter | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The ``k`` documents whose stage-one vectors are nearest to a vector. This is only a rough order.

        For callers that have one vector and no text, such as parts of a framework. ``TextEncoder(index.encoder).
        encode_queries`` makes such a vector. Exact MaxSim needs the query's tokens, so no candidate is reranked: see
        "@100" and the like in docs/benchmarks.md for what stage one finds alone.

        Args:
            vector: a query's FDE, made with the index's encoder and its FDE settings, shape (output dimension,).
            k: number of hits.
            filter: see ``search``.
            ids: see ``search``.

        Returns:
            Hits with the cosine of the two vectors as ``score``, and clipped to [0, 1] as ``normalized_score``.

        Raises:
            InvalidInputError: the vector has another width; or the index compares vectors that no FDE alone can be
                compared with, because it was optimized or its FDE is centred.
        """
        self._start_reading()
        return search_by_vector(self._collection, vector, _options(k, None, filter, ids))

    def plan(
        self,
        k: int = 10,
        n_candidates: int | None = None,
        *,
        filter: Filter | None = None,
        ids: Sequence[str] | None = None,
        exact: bool = False,
    ) -> SearchPlan:
        """How a search with these arguments would find its hits, and why. Nothing is searched. See ``search``."""
        self._start_reading()
        return make_plan(self._collection, _options(k, n_candidates, filter, ids, exact=exact))

    def explain(self, query: str, id: str) -> list[TokenMatch]:
        """The document token that matches each query token best.

        For a document that was added as an image, a match names the patch that the token stands for.

        If the document's tokens were merged (``pool_factor``), the similarity is that of the merged token, because the
        score is made of it. Of the tokens that were merged, the match names the one that is nearest to the query token.
        To find it, the document is encoded again. If its image's file cannot be read any more, or was changed, the
        matches have no patch.

        Returns:
            One match per query token, in order. Their similarities add up to the hit's score.

        Raises:
            InvalidInputError: no document has this id, or the query is empty.
        """
        self._start_reading()
        query = require_text("query", repaired(require_string("query", query)))
        id = require_text("id", id)
        return explain(self._collection, self._encoder, query, id)

    def similarity_maps(self, query: str, id: str) -> FloatArray:
        """The similarity of each part of an image to each query token.

        From an index without pooling, the stored token vectors are compared. If they were merged (``pool_factor``), the
        image is read and encoded again.

        Args:
            query: the query's text.
            id: id of a document that was added as an image.

        Returns:
            float32, shape (query tokens, rows, columns): inner products. The query tokens are those of ``explain``. NaN
            for a patch that no token stands for.

        Raises:
            InvalidInputError: no document has this id, it was not added as an image, its image is needed and cannot be
                read any more, or the query is empty.
        """
        self._start_reading()
        query = require_text("query", repaired(require_string("query", query)))
        return similarity_maps(self._collection, self._encoder, query, require_text("id", id))

    def heat_map(
        self, query: str, id: str, *, token: int | None = None, image: ImageInput | None = None, opacity: float = 0.6
    ) -> Image:
        """The image of a document under a heat map: the more a patch resembles the query, the redder it is.

        Args:
            query: the query's text.
            id: id of a document that was added as an image.
            token: place of a query token in the result of ``explain``. Its map has the colours that all tokens' maps
                share, so a weak token's is pale. None draws the mean over the tokens that are words of the query.
            image: what to draw over. None takes the document's image from its file.
            opacity: how much the highest similarity covers the image, from 0 to 1.

        Returns:
            An image of the same size, upright, in mode RGB.

        Raises:
            InvalidInputError: the cases of ``similarity_maps``, there is no such token, or ``image`` cannot be read.
            MissingExtraError: Pillow is not installed.
        """
        maps = self.similarity_maps(query, id)
        spans = self._encoder.query_spans(repaired(query))
        if token is None:
            is_word = spans[:, 1] > spans[:, 0]
            grid, value_range = maps[is_word if is_word.any() else slice(None)].mean(axis=0), None
        else:
            if require_count("token", token, 0) >= len(maps):
                raise InvalidInputError(f"token must be below {len(maps)}, the number of query tokens, got {token}")
            grid, value_range = maps[token], (float(np.nanmin(maps)), float(np.nanmax(maps)))
        page = read_image(read_document(self._collection, id)[0]) if image is None else image
        return heat_map(page, grid, value_range=value_range, opacity=opacity)


def _options(
    k: int,
    n_candidates: int | None,
    filter: Filter | None,
    ids: Sequence[str] | None,
    min_score: float | None = None,
    *,
    exact: bool = False,
    mode: SearchMode = "late",
    lexical_weight: float | None = None,
    fusion: Fusion = "scores",
    with_passages: bool = False,
) -> SearchOptions:
    """The checked options of a search."""
    return SearchOptions(
        k=require_count("k", k),
        n_candidates=None if n_candidates is None else require_count("n_candidates", n_candidates),
        condition=compile_filter(filter),
        ids=None if ids is None else tuple(require_texts("ids", ids)),
        min_score=None if min_score is None else require_share("min_score", min_score),
        exact=exact,
        mode=require_choice("mode", mode, get_args(SearchMode)),
        lexical_weight=None if lexical_weight is None else require_share("lexical_weight", lexical_weight),
        fusion=require_choice("fusion", fusion, get_args(Fusion)),
        with_passages=with_passages,
    )


def _require_clock(clock: StageClock | None) -> StageClock:
    if clock is not None and not isinstance(clock, StageClock):
        raise InvalidInputError(f"clock must be a StageClock, got {type(clock).__name__}")
    return StageClock() if clock is None else clock

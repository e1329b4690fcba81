"""The calls that search, rank and explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import numpy as np
import numpy.typing as npt

from muvera_core.errors import InvalidInputError
from muvera_core.filters import compile_filter
from muvera_core.hits import Hit, TokenMatch
from muvera_core.images import ImageInput, heat_map
from muvera_core.index.parts import Filter, IndexParts
from muvera_core.search import (
    CrossEncoder,
    DiversityMethod,
    Fusion,
    JudgingOptions,
    QueryReduction,
    Question,
    SearchMode,
    SearchOptions,
    SearchPlan,
    StageClock,
    cover,
    diversify,
    judge,
    require_query_reduction,
    scoring_function,
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
        query_reduction: QueryReduction | None = None,
        clock: StageClock | None = None,
    ) -> list[Hit]:
        """The ``k`` documents that match a query best, best first.

        A query without a visible character, which a model may write, matches nothing. With a filter or ids, the first
        ``k`` documents that these admit are returned, in the order in which they were added, with a score of 0. Then
        ``min_score`` does not count.

        Args:
            query: the query's text.
            k: number of hits. A smaller index returns all its documents; in mode "lexical", those with a word of the
                query.
            n_candidates: number of candidates to rerank. More candidates find more and take longer. None takes what
                ``optimize`` chose, or else the larger of 400 and 10 * k.
            mode: what ranks documents. "late" takes late interaction: exact MaxSim. "lexical" takes the words alone:
                BM25 over the stored texts. "hybrid" reranks the candidates of both by MaxSim and adds BM25's share.
            lexical_weight: BM25's share in mode "hybrid", from 0 to 1. None takes what ``optimize`` chose, or else
                chooses for each question: more for words that are rare or that the encoder does not know.
            fusion: how mode "hybrid" joins the two. "scores" adds both scores, brought to one scale. "ranks" is
                reciprocal rank fusion.
            filter: admits documents by their metadata, for example ``{"year": {"$gte": 2020}}``. See
                ``muvera_core.filters``. If the filter admits at least ``k`` documents, ``k`` are returned,
                except in mode "lexical".
            ids: admits only documents with these ids. Unknown ids are ignored.
            min_score: smallest ``relevance`` of a hit, from 0 to 1.
            exact: score every document. This is slow. It is the reference for every other search. Mode "lexical" always
                does it.
            with_passages: find the part of each hit's text that matched best, whole sentences of at most 500 characters
                together: ``hit.passage``. For a longer text this takes about as long as tokenizing it.
            query_reduction: makes the query shorter for the choice of the documents that are then reranked by all its
                tokens. This saves time with models whose queries have many tokens alike. None leaves it as it is.
            clock: collects the time of each stage.

        Raises:
            InvalidInputError: ``k`` or ``n_candidates`` is below 1, ``min_score`` is outside [0, 1], the filter is
                invalid, or ``query_reduction`` is given with ``exact`` or mode "lexical", which have no use for it.
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
            query_reduction=query_reduction,
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
        query_reduction: QueryReduction | None = None,
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
            query_reduction=query_reduction,
        )
        clock = _require_clock(clock)
        is_asked = [has_visible_text(query) for query in queries]
        asked = [query for query, is_one in zip(queries, is_asked, strict=True) if is_one]
        hits: Iterator[list[Hit]] = iter(())
        if asked:
            questions = self._questions(asked, options, clock)
            hits = iter(self._engine.search(questions, options, clock))
        return [next(hits) if is_one else self._engine.without_question(options) for is_one in is_asked]

    def _questions(self, queries: Sequence[str], options: SearchOptions, clock: StageClock) -> list[Question]:
        """The queries with their token vectors; without, if only their words count."""
        if options.mode == "lexical" and not options.with_passages:
            nothing = np.empty((0, self._encoder.dimension), dtype=np.float32)
            return [Question(nothing, query) for query in queries]
        with clock.stage("encode"):
            encoded = require_encoded(self._encoder.encode_queries(queries), len(queries), self._encoder.dimension)
        return [Question(tokens, query) for tokens, query in zip(encoded, queries, strict=True)]

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
        query_reduction: QueryReduction | None = None,
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
            query_reduction=query_reduction,
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
        query_reduction: QueryReduction | None = None,
        clock: StageClock | None = None,
    ) -> list[list[Hit]]:
        """The hits of several queries that are given by their token embeddings. See ``search``."""
        self._start_reading()
        queries = require_queries(query_tokens, self._encoder.dimension)
        options = _options(
            k,
            n_candidates,
            filter,
            ids,
            min_score,
            exact=exact,
            with_passages=with_passages,
            query_reduction=query_reduction,
        )
        questions = [Question(query) for query in queries]
        return self._engine.search(questions, options, _require_clock(clock))

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
        mode: SearchMode = "late",
        method: DiversityMethod = "mmr",
        fetch_k: int = 50,
        relevance_weight: float = 0.5,
        n_neighbors: int = 0,
        filter: Filter | None = None,
        ids: Sequence[str] | None = None,
        min_score: float | None = None,
    ) -> list[Hit]:
        """Hits that match a query well and differ from one another, or answer its parts together.

        "mmr" is maximal marginal relevance: each hit is as unlike the hits before it as possible. Take it if the index
        holds copies, or passages that overlap. "coverage" takes the hits that match together as much of the query as
        possible. Take it for questions with several parts, which no single passage answers.

        The similarity of two documents is the cosine of their FDEs. Among the hits of one query it agrees with their
        late-interaction similarity (correlation .9), whose cost would grow with the square of their length.

        Args:
            query: the query's text.
            k: number of hits. They are returned in the order in which they are chosen.
            mode: what ranks the hits to choose from; see ``search``.
            method: "mmr" or "coverage".
            fetch_k: number of best hits to choose from. At least ``k`` are taken.
            relevance_weight: from 0, which looks at diversity or coverage only, to 1, which looks at relevance only.
            n_neighbors: number of documents to choose from as well for each of the ``k`` best hits: those whose
                stage-one vectors are nearest to its own. They are scored by exact MaxSim, as all hits are.
            filter: see ``search``.
            ids: see ``search``.
            min_score: see ``search``.

        Raises:
            InvalidInputError: the same cases as for ``search``, ``relevance_weight`` is outside [0, 1], or ``method``
                is unknown.
        """
        method = require_choice("method", method, get_args(DiversityMethod))
        relevance_weight = require_share("relevance_weight", relevance_weight)
        k, fetch_k = require_count("k", k), require_count("fetch_k", fetch_k)
        n_neighbors = require_count("n_neighbors", n_neighbors, 0)
        options = _options(max(k, fetch_k), None, filter, ids, min_score, mode=mode)
        if n_neighbors and mode != "late":
            raise InvalidInputError(f"n_neighbors is for mode='late', got mode={mode!r}: leave one of the two out")
        query = repaired(require_string("query", query))
        self._start_reading()
        if has_visible_text(query):
            tokens = require_encoded(self._encoder.encode_queries([query]), 1, self._encoder.dimension).vectors
            hits = self._engine.search([Question(tokens, query)], options, StageClock())[0]
            hits = self._with_neighbors(tokens, hits, options, k, n_neighbors)
        else:
            tokens = np.empty((0, self._encoder.dimension), dtype=np.float32)
            hits = self._engine.without_question(options)
        features = self._engine.features([hit.id for hit in hits], tokens)
        return (cover if method == "coverage" else diversify)(hits, features, k, relevance_weight)

    def _with_neighbors(
        self, query_tokens: FloatArray, hits: list[Hit], options: SearchOptions, n_best: int, n: int
    ) -> list[Hit]:
        """The hits and ``n`` neighbours of each of the best of them, ranked together by exact MaxSim."""
        if not hits or n == 0:
            return hits
        ids = [hit.id for hit in hits]
        ids = list(dict.fromkeys([*ids, *self._engine.neighbors(ids[:n_best], options, n)]))
        together = replace(options, ids=tuple(ids), k=len(ids), exact=True)
        return self._engine.search([Question(query_tokens)], together, StageClock())[0]

    def search_with_cross_encoder(
        self,
        query: str,
        cross_encoder: CrossEncoder,
        k: int = 10,
        *,
        n_calls: int = 50,
        n_candidates: int = 1000,
        batch_size: int = 8,
        filter: Filter | None = None,
        ids: Sequence[str] | None = None,
        clock: StageClock | None = None,
    ) -> list[Hit]:
        """The documents that a cross-encoder ranks highest among many candidates, of which it judges only some.

        A cross-encoder reads the query and a document together. That is slow, so it can judge some dozens of documents,
        while the one that it likes best may be far down in MaxSim's order. Its first judgements are of the best
        candidates by MaxSim. From its judgements the scores of all others are predicted, by what late interaction knows
        of them: MaxSim, the match of each query token, and the documents' mean tokens. It then judges those with the
        highest predictions, in rounds, each of which improves the predictions. See docs/how-it-works.md.

        If there are no more candidates than ``n_calls``, all of them are judged.

        Args:
            query: the query's text. Without a visible character nothing is judged; see ``search``.
            cross_encoder: a function that gets a list of (query, text) pairs and returns one number for each, the
                higher, the more relevant; or an object with ``predict(pairs)``, such as ``CrossEncoder`` of
                sentence-transformers, or ``score(pairs)``, such as a cross-encoder of LangChain. It has to give the
                same pair the same score in any company. What it raises reaches the caller as it is.
            k: number of hits.
            n_calls: number of pairs to judge, at most.
            n_candidates: number of candidates to judge or predict, found by late interaction. Those without a text are
                left out.
            batch_size: number of pairs to judge at a time. Smaller batches let each judgement improve more of the
                next choices.
            filter: see ``search``.
            ids: see ``search``.
            clock: collects the time of each stage.

        Returns:
            The hits that were judged, by falling ``judged_score``, which is the cross-encoder's; if ``k`` asks for
            more, then others by falling prediction, with ``judged_score`` None. All other scores are those of
            ``search``.

        Raises:
            InvalidInputError: the same cases as for ``search``; ``n_calls`` or ``batch_size`` is below 1; or
                ``cross_encoder`` cannot be called.
            EncoderError: the cross-encoder did not return one finite number for each pair.
        """
        self._start_reading()
        query = repaired(require_string("query", query))
        score = scoring_function(cross_encoder)
        judging = JudgingOptions(require_count("n_calls", n_calls), require_count("batch_size", batch_size))
        options = _options(k, require_count("n_candidates", n_candidates), filter, ids)
        clock = _require_clock(clock)
        if not has_visible_text(query):
            return self._engine.without_question(options)
        with clock.stage("encode"):
            encoded = require_encoded(self._encoder.encode_queries([query]), 1, self._encoder.dimension)
        hits, features = self._engine.candidates(encoded[0], options, judging.n_calls, clock)
        return judge(query, hits, features, options.k, judging, score, clock)

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
        return self._engine.search_by_vector(vector, _options(k, None, filter, ids))

    def plan(
        self,
        k: int = 10,
        n_candidates: int | None = None,
        *,
        mode: SearchMode = "late",
        filter: Filter | None = None,
        ids: Sequence[str] | None = None,
        exact: bool = False,
        query_reduction: QueryReduction | None = None,
    ) -> SearchPlan:
        """How a search with these arguments would find its hits, and why. Nothing is searched. See ``search``."""
        self._start_reading()
        options = _options(k, n_candidates, filter, ids, exact=exact, mode=mode, query_reduction=query_reduction)
        return self._engine.plan(options)

    def explain(self, query: str, id: str) -> list[TokenMatch]:
        """The document token that matches each query token best.

        For a document that was added as an image, a match names the patch that the token stands for.

        If the document's tokens were merged (``pool_factor``), the similarity is that of the merged token, because the
        score is made of it. Of the tokens that were merged, the match names the one that is nearest to the query token.
        Tokens that were dropped (``keep_tokens``) match nothing. To find out which they are, the document is encoded
        again, as it is for merged ones. If its image's file cannot be read any more, or was changed, the
        matches have no patch.

        Returns:
            One match per query token, in order. Their similarities add up to the hit's score.

        Raises:
            InvalidInputError: no document has this id, or the query is empty.
        """
        self._start_reading()
        query = require_text("query", repaired(require_string("query", query)))
        id = require_text("id", id)
        return self._engine.explain(query, id)

    def similarity_maps(self, query: str, id: str) -> FloatArray:
        """The similarity of each part of an image to each query token.

        From an index that stores all tokens, the stored token vectors are compared. If some were merged or dropped
        (``pool_factor``, ``keep_tokens``), the image is read and encoded again.

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
        return self._engine.similarity_maps(query, require_text("id", id))

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
        page = self._engine.image(id) if image is None else image
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
    query_reduction: QueryReduction | None = None,
) -> SearchOptions:
    """The checked options of a search."""
    mode = require_choice("mode", mode, get_args(SearchMode))
    fusion = require_choice("fusion", fusion, get_args(Fusion))
    if mode != "hybrid" and (lexical_weight is not None or fusion != "scores"):
        name = "fusion" if lexical_weight is None else "lexical_weight"
        raise InvalidInputError(f"{name} is for mode='hybrid', got mode={mode!r}: change the mode, or leave {name} out")
    if mode == "lexical" and n_candidates is not None:
        raise InvalidInputError("mode 'lexical' reranks no candidates: leave n_candidates out, or use mode='hybrid'")
    query_reduction = require_query_reduction(query_reduction)
    if query_reduction is not None and (exact or mode == "lexical"):
        given = "exact=True scores all documents by all" if exact else 'mode="lexical" scores no'
        raise InvalidInputError(f"{given} tokens of the query: leave query_reduction out")
    return SearchOptions(
        k=require_count("k", k),
        n_candidates=None if n_candidates is None else require_count("n_candidates", n_candidates),
        condition=compile_filter(filter),
        ids=None if ids is None else tuple(require_texts("ids", ids)),
        min_score=None if min_score is None else require_share("min_score", min_score),
        exact=exact,
        mode=mode,
        lexical_weight=None if lexical_weight is None else require_share("lexical_weight", lexical_weight),
        fusion=fusion,
        with_passages=with_passages,
        query_reduction=query_reduction,
    )


def _require_clock(clock: StageClock | None) -> StageClock:
    if clock is not None and not isinstance(clock, StageClock):
        raise InvalidInputError(f"clock must be a StageClock, got {type(clock).__name__}")
    return StageClock() if clock is None else clock

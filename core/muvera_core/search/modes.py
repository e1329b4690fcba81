"""Ranks documents for a group of questions: by exact MaxSim, by BM25, or by both.

``score`` looks at the documents of one snapshot. ``rank`` makes a ranking of the scores. An index that is spread over
several shards joins their scores in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from muvera_core.collection import Collection, RerankRequest
from muvera_core.errors import InvalidInputError
from muvera_core.lexical import LexicalQuery, parse_query
from muvera_core.search.candidates import find_candidates
from muvera_core.search.fusion import N_NORMALIZED, Terms, fuse_ranks, fuse_scores, weight_of_words
from muvera_core.search.moment import Moment, take_moment
from muvera_core.search.plan import SearchOptions
from muvera_core.search.reranking import rerank, shortlist
from muvera_core.search.stage_clock import StageClock
from muvera_core.storage import Snapshot, WordStatistics
from muvera_core.token_embeddings import FloatArray, IntArray

# BM25's share if ranks are joined and no share was given: both rankings count alike.
_EQUAL_SHARES = 0.5


@dataclass(frozen=True, eq=False)
class Question:
    """What is searched for.

    Attributes:
        tokens: token vectors, float32, shape (tokens, dimension). No tokens if only the words count.
        text: the text. None if it is not known, because the token vectors were given.
    """

    tokens: FloatArray
    text: str | None = None


@dataclass(frozen=True, eq=False)
class Scored:
    """Documents and their scores for a question: in mode "hybrid" all that were scored, else the best.

    Attributes:
        keys: the documents, int64.
        maxsim: exact MaxSim, float32. None in mode "lexical".
        bm25: float32. None in mode "late".
        statistics: what BM25 knows. None in mode "late".
    """

    keys: IntArray
    maxsim: FloatArray | None
    bm25: FloatArray | None = None
    statistics: WordStatistics | None = None


@dataclass(frozen=True, eq=False)
class Ranked:
    """The best documents for a question, best first.

    Attributes:
        keys: the documents, int64.
        scores: what they are ranked by, float32.
        comparable: the same, brought to a scale that questions share, on which 0 to 1 is usual.
        bm25: their BM25, float32; None in mode "late".
    """

    keys: IntArray
    scores: FloatArray
    comparable: FloatArray
    bm25: FloatArray | None = None


def score(
    collection: Collection,
    questions: Sequence[Question],
    options: SearchOptions,
    k: int,
    clock: StageClock,
    *,
    whole: Sequence[WordStatistics] | None = None,
    of_common: bool | None = None,
) -> tuple[Moment, list[Scored]]:
    """Score documents for each question.

    Args:
        collection: the documents.
        questions: the questions.
        options: of the search.
        k: number of best documents that the ranking needs.
        clock: collects the time of each stage.
        whole: what BM25 knows of the index that these documents are a part of, for each question. None if they are all.
        of_common: see ``Store.lexical_search``.

    Returns:
        The moment that the documents are of, and each question's scores.

    Raises:
        InvalidInputError: words are searched for, but the index has no word index.
        StaleError: a write has replaced the snapshot meanwhile.
    """
    parts = [None] * len(questions) if whole is None else whole
    if options.mode == "lexical":
        with clock.stage("words"):
            moment = take_moment(collection, collection.snapshot(), options)
            return moment, [
                _score_by_words(collection, moment, question, k, part, of_common)
                for question, part in zip(questions, parts, strict=True)
            ]
    with clock.stage("candidates"):
        moment, requests = find_candidates(collection, [question.tokens for question in questions], options)
    if moment.plan.n_shortlisted is not None:
        with clock.stage("shortlist"):
            requests = shortlist(collection, requests, moment.plan.n_shortlisted, options.query_reduction)
    if options.mode == "late":
        with clock.stage("rerank"):
            return moment, [Scored(*ranking) for ranking in rerank(collection, requests, k)]
    with clock.stage("words"):
        queries = [words_of(moment.snapshot, question) for question in questions]
        requests = [
            _with_candidates_of_words(collection, moment, *each) for each in zip(requests, queries, parts, strict=True)
        ]
    with clock.stage("rerank"):
        rankings = rerank(collection, requests)
    with clock.stage("words"):
        return moment, [
            Scored(keys, maxsim, *_weighed(collection, moment.snapshot, query, keys, part))
            for (keys, maxsim), query, part in zip(rankings, queries, parts, strict=True)
        ]


def rank(scored: Scored, n_query_tokens: int, options: SearchOptions, k: int, learned_weight: float | None) -> Ranked:
    """The ``k`` best documents of a question, best first, ties by rising key.

    Args:
        scored: the documents that were scored.
        n_query_tokens: number of the question's tokens.
        options: of the search.
        k: number of documents to return.
        learned_weight: BM25's share that was learned for mode "hybrid". None if there is none.
    """
    maxsim, bm25 = scored.maxsim, scored.bm25
    terms = None if scored.statistics is None else Terms(scored.statistics.n_documents, scored.statistics.frequencies)
    scale = float(max(1, n_query_tokens))
    if bm25 is None or terms is None:
        assert maxsim is not None
        scores = maxsim
    elif maxsim is None:
        scores, scale = bm25, terms.highest_bm25 or 1.0
    elif options.fusion == "ranks":
        weight = _EQUAL_SHARES if options.lexical_weight is None else options.lexical_weight
        scores, scale = fuse_ranks(maxsim, bm25, weight), 1.0
    else:
        given = options.lexical_weight
        if given is None and not options.weighs_each_question:
            given = learned_weight
        weight = weight_of_words(maxsim, bm25, terms) if given is None else given
        scores = fuse_scores(maxsim, bm25, weight, n_query_tokens)
    best = np.lexsort((scored.keys, -scores))[:k]
    found = None if bm25 is None else bm25[best]
    return Ranked(scored.keys[best], scores[best], scores[best] / np.float32(scale), found)


def words_of(snapshot: Snapshot, question: Question) -> LexicalQuery:
    """The words that a question asks for. Raises InvalidInputError if there is no word index, or no text."""
    if snapshot.lexical is None:
        raise InvalidInputError(
            "this index has no word index, which modes 'lexical' and 'hybrid' need: call set_lexical(True), or search "
            "with mode='late'"
        )
    if question.text is None:
        raise InvalidInputError("modes 'lexical' and 'hybrid' need the question's text: call search")
    return parse_query(snapshot.lexical, question.text)


def _score_by_words(
    collection: Collection,
    moment: Moment,
    question: Question,
    k: int,
    whole: WordStatistics | None,
    of_common: bool | None,
) -> Scored:
    store, snapshot, query = collection.store, moment.snapshot, words_of(moment.snapshot, question)
    admitted = None if moment.admits_all else moment.admitted
    keys, bm25 = store.lexical_search(snapshot, query, k, admitted, whole, of_common=of_common)
    return Scored(keys, None, bm25, store.word_statistics(snapshot, query) if whole is None else whole)


def _with_candidates_of_words(
    collection: Collection, moment: Moment, request: RerankRequest, query: LexicalQuery, whole: WordStatistics | None
) -> RerankRequest:
    if moment.plan.reranks_all and moment.plan.n_shortlisted is None:
        return request  # they are among its documents
    admitted = None if moment.admits_all else moment.admitted
    keys, _ = collection.store.lexical_search(moment.snapshot, query, N_NORMALIZED, admitted, whole)
    return replace(request, keys=np.union1d(request.keys, keys))


def _weighed(
    collection: Collection, snapshot: Snapshot, query: LexicalQuery, keys: IntArray, whole: WordStatistics | None
) -> tuple[FloatArray, WordStatistics]:
    """BM25 of documents, and what it knows."""
    store = collection.store
    statistics = store.word_statistics(snapshot, query) if whole is None else whole
    return store.lexical_scores(snapshot, query, keys, whole), statistics

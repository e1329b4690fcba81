"""Ranks the documents of one snapshot for a group of questions: by exact MaxSim, by BM25, or by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from muvera_core.collection import Collection, RerankRequest
from muvera_core.errors import InvalidInputError
from muvera_core.lexical import LexicalQuery, parse_query
from muvera_core.maxsim import Ranking
from muvera_core.search.candidates import find_candidates
from muvera_core.search.fusion import N_NORMALIZED, Terms, fuse_ranks, fuse_scores, weight_of_words
from muvera_core.search.moment import Moment, take_moment
from muvera_core.search.plan import SearchOptions
from muvera_core.search.reranking import rerank, shortlist
from muvera_core.search.stage_clock import StageClock
from muvera_core.storage import Snapshot
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


def rank(
    collection: Collection, questions: Sequence[Question], options: SearchOptions, k: int, clock: StageClock
) -> tuple[Moment, list[Ranked]]:
    """The ``k`` best documents for each question, and the moment that they are of.

    Raises:
        InvalidInputError: words are searched for, but the index has no word index.
        StaleError: a write has replaced the snapshot meanwhile.
    """
    if options.mode == "lexical":
        with clock.stage("words"):
            return _rank_by_words(collection, questions, options, k)
    with clock.stage("candidates"):
        moment, requests = find_candidates(collection, [question.tokens for question in questions], options)
    if moment.plan.n_shortlisted is not None:
        with clock.stage("shortlist"):
            requests = shortlist(collection, requests, moment.plan.n_shortlisted, options.query_reduction)
    if options.mode == "late":
        with clock.stage("rerank"):
            rankings = rerank(collection, requests, k)
        return moment, [
            Ranked(keys, scores, scores / np.float32(len(request.query)))
            for request, (keys, scores) in zip(requests, rankings, strict=True)
        ]
    with clock.stage("words"):
        queries = [_words_of(moment.snapshot, question) for question in questions]
        requests = [
            _with_candidates_of_words(collection, moment, *both) for both in zip(requests, queries, strict=True)
        ]
    with clock.stage("rerank"):
        rankings = rerank(collection, requests)
    with clock.stage("fuse"):
        return moment, [
            _fused(collection, request, query, ranking, options, k)
            for request, query, ranking in zip(requests, queries, rankings, strict=True)
        ]


def _rank_by_words(
    collection: Collection, questions: Sequence[Question], options: SearchOptions, k: int
) -> tuple[Moment, list[Ranked]]:
    moment, store = take_moment(collection, collection.snapshot(), options), collection.store
    admitted, ranked = None if moment.admits_all else moment.admitted, []
    for question in questions:
        query = _words_of(moment.snapshot, question)
        keys, bm25 = store.lexical_search(moment.snapshot, query, k, admitted)
        highest = np.float32(_terms_of(collection, moment.snapshot, query).highest_bm25)
        ranked.append(Ranked(keys, bm25, bm25 / highest if highest > 0 else bm25, bm25))
    return moment, ranked


def _words_of(snapshot: Snapshot, question: Question) -> LexicalQuery:
    if snapshot.lexical is None:
        raise InvalidInputError(
            "this index has no word index, which modes 'lexical' and 'hybrid' need: call set_lexical(True), or search "
            "with mode='late'"
        )
    if question.text is None:
        raise InvalidInputError("modes 'lexical' and 'hybrid' need the question's text: call search")
    return parse_query(snapshot.lexical, question.text)


def _terms_of(collection: Collection, snapshot: Snapshot, query: LexicalQuery) -> Terms:
    return Terms(len(snapshot), collection.store.term_frequencies(snapshot, query))


def _with_candidates_of_words(
    collection: Collection, moment: Moment, request: RerankRequest, query: LexicalQuery
) -> RerankRequest:
    if moment.plan.reranks_all and moment.plan.n_shortlisted is None:
        return request  # they are among its documents
    admitted = None if moment.admits_all else moment.admitted
    keys, _ = collection.store.lexical_search(moment.snapshot, query, N_NORMALIZED, admitted)
    return replace(request, keys=np.union1d(request.keys, keys))


def _fused(
    collection: Collection,
    request: RerankRequest,
    query: LexicalQuery,
    ranking: Ranking,
    options: SearchOptions,
    k: int,
) -> Ranked:
    (keys, maxsim), n_tokens = ranking, len(request.query)
    bm25 = collection.store.lexical_scores(request.snapshot, query, keys)
    weight = options.lexical_weight
    if options.fusion == "ranks":
        scores = fuse_ranks(maxsim, bm25, _EQUAL_SHARES if weight is None else weight)
    else:
        if weight is None and not options.weighs_each_question:
            weight = collection.learned.lexical_weight
        if weight is None:
            weight = weight_of_words(maxsim, bm25, _terms_of(collection, request.snapshot, query))
        scores = fuse_scores(maxsim, bm25, weight, n_tokens)
    best = np.lexsort((keys, -scores))[:k]
    per_token = np.float32(1 if options.fusion == "ranks" else n_tokens)
    return Ranked(keys[best], scores[best], scores[best] / per_token, bm25[best])

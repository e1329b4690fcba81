"""A search whose last word has a cross-encoder, which judges only some of the candidates.

candidates → MaxSim and features → rounds of judging and predicting → hits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from muvera_core.batches import runs_by_size
from muvera_core.collection import Collection
from muvera_core.hits import Hit
from muvera_core.maxsim import normalize_scores
from muvera_core.search.candidates import find_candidates
from muvera_core.search.cross_encoder import Scores
from muvera_core.search.pipeline import HitScores, scored_hits
from muvera_core.search.plan import SearchOptions
from muvera_core.search.reranking import rerank
from muvera_core.search.score_prediction import Features, choose_first, choose_next, predict_scores
from muvera_core.search.stage_clock import StageClock
from muvera_core.storage import Snapshot, Store
from muvera_core.token_embeddings import FloatArray, IntArray

# Tokens whose features are computed together, which bounds the memory.
_TOKENS_TOGETHER = 100_000


@dataclass(frozen=True)
class JudgingOptions:
    """How often a cross-encoder is asked.

    Attributes:
        n_calls: number of pairs that it scores, at most.
        batch_size: number of pairs that it gets at a time.
    """

    n_calls: int
    batch_size: int


def judge(
    query: str,
    hits: Sequence[Hit],
    features: Features | None,
    k: int,
    judging: JudgingOptions,
    score: Callable[[str, Sequence[str]], Scores],
    clock: StageClock,
) -> list[Hit]:
    """Let a cross-encoder judge some of the candidates, and rank them. See ``IndexCalls.search_with_cross_encoder``.

    Args:
        query: the question.
        hits: the candidates, by falling MaxSim.
        features: the candidates' features; None if all of them are to be judged.
        k: number of hits to return.
        judging: how often the cross-encoder is asked.
        score: scores a question's texts.
        clock: collects the time.
    """
    scores = np.full(len(hits), np.nan)

    def judge_places(places: IntArray) -> None:
        texts = [hits[place].text or "" for place in places]
        with clock.stage("cross-encoder"):
            scores[places] = score(query, texts)

    predicted = judge_some(len(hits), features, judging, judge_places, scores, clock)
    order = np.lexsort((-predicted, np.isnan(scores)))  # stable: ties keep the order by MaxSim
    return [
        replace(hits[place], judged_score=None if np.isnan(scores[place]) else float(scores[place]))
        for place in order[:k].tolist()
    ]


def judge_some(
    n: int,
    features: Features | None,
    judging: JudgingOptions,
    judge: Callable[[IntArray], None],
    scores: Scores,
    clock: StageClock,
) -> Scores:
    """Judge up to ``n_calls`` of ``n`` candidates, which come in MaxSim's order.

    Args:
        n: number of candidates.
        features: the candidates' features; None if all of them are to be judged.
        judging: how often the cross-encoder is asked.
        judge: writes the scores of some candidates into ``scores``.
        scores: float64, shape (candidates,), NaN where the candidate was not judged.
        clock: collects the time.

    Returns:
        Each candidate's score, or its prediction where it was not judged, float64, shape (candidates,).
    """
    if features is None:
        for start in range(0, n, judging.batch_size):
            judge(np.arange(start, min(n, start + judging.batch_size)))
        return scores
    with clock.stage("predict"):
        places = choose_first(n, judging.n_calls)
    left = judging.n_calls
    while True:
        for start in range(0, len(places), judging.batch_size):
            judge(places[start : start + judging.batch_size])
        left -= len(places)
        with clock.stage("predict"):
            predicted = predict_scores(features, scores)
            if not left:
                return np.where(np.isnan(scores), predicted, scores)
            places = choose_next(predicted, scores, min(left, judging.batch_size))


def candidates_to_judge(
    collection: Collection, query_tokens: FloatArray, options: SearchOptions, n_judged: int, clock: StageClock
) -> tuple[list[Hit], Features | None]:
    """The candidates that have a text, by falling MaxSim, and their features, if more than ``n_judged`` are found."""
    return collection.read_with_retry(lambda _: _candidates(collection, query_tokens, options, n_judged, clock))


def _candidates(
    collection: Collection, query_tokens: FloatArray, options: SearchOptions, n_judged: int, clock: StageClock
) -> tuple[list[Hit], Features | None]:
    with clock.stage("candidates"):
        _, requests = find_candidates(collection, [query_tokens], options)
    snapshot = requests[0].snapshot
    with clock.stage("rerank"):
        keys, scores = rerank(collection, requests, options.n_candidates)[0]
    with clock.stage("fetch"):
        documents = collection.store.documents(snapshot, keys)
        has_text = [bool(document.text and document.text.strip()) for document in documents]
        documents = [document for document, has in zip(documents, has_text, strict=True) if has]
        keys, scores = keys[has_text], scores[has_text]
        shares = normalize_scores(scores, len(query_tokens)).tolist()
        hits = scored_hits(documents, [HitScores(*each) for each in zip(scores.tolist(), shares, shares, strict=True)])
    if len(hits) <= n_judged:
        return hits, None
    with clock.stage("features"):
        return hits, _features(collection.store, snapshot, keys, query_tokens, scores)


def _features(
    store: Store, snapshot: Snapshot, keys: IntArray, query_tokens: FloatArray, scores: FloatArray
) -> Features:
    lengths = snapshot.rows.count[snapshot.places(keys)]
    matches = np.empty((len(keys), len(query_tokens)), dtype=np.float32)
    contents = np.empty((len(keys), query_tokens.shape[1]), dtype=np.float32)
    for start, end in runs_by_size(lengths, _TOKENS_TOGETHER):
        tokens = store.embeddings(snapshot, keys[start:end])
        similarities = tokens.vectors @ query_tokens.T
        bounds = tokens.offsets.tolist()
        # A loop takes a fourth of the time of NumPy's reduceat.
        for place, first, last in zip(range(start, end), bounds, bounds[1:], strict=False):
            matches[place] = similarities[first:last].max(axis=0)
            contents[place] = tokens.vectors[first:last].sum(axis=0)
    return Features(scores, matches, contents)

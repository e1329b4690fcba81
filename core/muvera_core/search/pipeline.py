"""One search from end to end: candidates → shortlist, if it can be chosen at less cost → exact MaxSim → hits.

Mode "hybrid" adds the candidates that BM25 finds, and joins both scores; mode "lexical" takes BM25 alone (``modes``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from typing import NamedTuple

from muvera_core.batches import batched
from muvera_core.calibration import Calibration
from muvera_core.collection import Collection
from muvera_core.encoders import TokenEncoder
from muvera_core.hits import Hit
from muvera_core.maxsim import normalize_scores
from muvera_core.search.modes import Question, Ranked, rank, score
from muvera_core.search.moment import Moment, take_moment
from muvera_core.search.passages import add_passages
from muvera_core.search.plan import SearchOptions, SearchPlan
from muvera_core.search.relevance import n_competing, n_ranked, relevance_of
from muvera_core.search.stage_clock import StageClock
from muvera_core.storage import LearnedSettings, StoredDocument

# Queries that are searched together: their candidates are of one snapshot, and they are searched again together if a
# document is deleted meanwhile.
_QUERIES_TOGETHER = 64


def search(
    collection: Collection,
    questions: Sequence[Question],
    options: SearchOptions,
    clock: StageClock,
    encoder: TokenEncoder | None = None,
) -> list[list[Hit]]:
    """The best documents for each question, best first. ``encoder`` tells where passages are."""

    def search_group(group: Sequence[Question]) -> list[list[Hit]]:
        calibration = calibration_for(collection.learned, options)
        k = n_ranked(options.k, calibration)
        moment, scored = score(collection, group, options, k, clock)
        weight = collection.learned.lexical_weight
        with clock.stage("fuse") if options.mode == "hybrid" else nullcontext():
            ranked = [
                rank(of_it, len(question.tokens), options, k, weight)
                for question, of_it in zip(group, scored, strict=True)
            ]
        with clock.stage("fetch"):
            hits = _fetch(collection, moment, ranked, options, calibration)
        if options.with_passages and encoder is not None:
            with clock.stage("passages"):
                tokens = [question.tokens for question in group]
                hits = add_passages(collection, encoder, moment.snapshot, tokens, hits)
        return hits

    hits: list[list[Hit]] = []
    for group in batched(questions, _QUERIES_TOGETHER):
        hits += collection.read_with_retry(lambda _: search_group(group))  # noqa: B023
    return hits


def calibration_for(learned: LearnedSettings, options: SearchOptions) -> Calibration | None:
    """The calibration to use. None if there is none: ranks are on no scale that one was learned on."""
    return learned.calibration_of(options.mode) if options.fusion == "scores" else None


def make_plan(collection: Collection, options: SearchOptions) -> SearchPlan:
    """How a search with these options would find its candidates now."""
    return collection.read_with_retry(lambda snapshot: take_moment(collection, snapshot, options).plan)


class HitScores(NamedTuple):
    """What a search says about one document; see ``Hit``."""

    score: float
    normalized_score: float
    relevance: float
    lexical_score: float | None = None


def _fetch(
    collection: Collection,
    moment: Moment,
    ranked: Sequence[Ranked],
    options: SearchOptions,
    calibration: Calibration | None,
) -> list[list[Hit]]:
    """The hits of questions that were ranked at one moment."""
    n_documents = n_competing(moment.plan, options)
    found = [scores_of(each, options, n_documents, calibration) for each in ranked]
    keys = [each.keys[: len(scores)].tolist() for each, scores in zip(ranked, found, strict=True)]
    documents = iter(collection.store.documents(moment.snapshot, [key for some in keys for key in some]))
    return [scored_hits(list(islice(documents, len(scores))), scores) for scores in found]


def scores_of(
    ranked: Ranked, options: SearchOptions, n_documents: int, calibration: Calibration | None
) -> list[HitScores]:
    """The scores of the documents that become hits: the best ``k`` whose relevance is high enough."""
    normalized = normalize_scores(ranked.comparable, 1).tolist()
    relevance = relevance_of(ranked.comparable, 1, n_documents, calibration)[: options.k].tolist()
    least = 0.0 if options.min_score is None else options.min_score
    n = sum(share >= least for share in relevance)  # best first
    bm25 = [None] * n if ranked.bm25 is None else ranked.bm25[:n].tolist()
    return [HitScores(*scores) for scores in zip(ranked.scores[:n].tolist(), normalized, relevance, bm25, strict=False)]


def scored_hits(documents: Sequence[StoredDocument], scores: Sequence[HitScores]) -> list[Hit]:
    """The documents with their scores."""
    return [
        Hit(document.id, document.text, document.metadata, *of_it, **document.image_fields)
        for document, of_it in zip(documents, scores, strict=True)
    ]

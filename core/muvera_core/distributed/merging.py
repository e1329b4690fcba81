"""Joins the answers of shards: which documents are the best of all, with the scores that one index would give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from muvera_core.search import (
    Features,
    HitFeatures,
    HitScores,
    Question,
    Ranked,
    Scored,
    SearchOptions,
    SearchPlan,
    calibration_for,
    n_ranked,
    rank,
    scores_of,
)
from muvera_core.storage import LearnedSettings, StoredDocument, WordStatistics
from muvera_core.token_embeddings import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class ShardAnswer:
    """What a shard says to several questions.

    Attributes:
        n_competing: number of documents from which its best come.
        learned: what was learned about scores. It is the same in all shards.
        scored: for each question, the documents and their scores.
        documents: the documents that were found, by key. Empty in mode "hybrid", where their scores are not final.
        seconds: time of each stage.
    """

    n_competing: int
    learned: LearnedSettings
    scored: Sequence[Scored]
    documents: Mapping[int, StoredDocument]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Found:
    """The documents that become hits of a question, best first.

    Attributes:
        places: shard and key of each.
        scores: the scores of each.
    """

    places: Sequence[tuple[int, int]]
    scores: Sequence[HitScores]


def merge(answers: Mapping[int, ShardAnswer], questions: Sequence[Question], options: SearchOptions) -> list[Found]:
    """The best documents of all shards, for each question.

    MaxSim scores are comparable between shards. BM25 is, too, if the shards were told the statistics of all of them.
    Ties go to the lowest key, then to the lowest shard.

    Args:
        answers: by the shard's number.
        questions: the questions that were asked.
        options: of the search.
    """
    learned = next(iter(answers.values())).learned
    calibration = calibration_for(learned, options)
    n_competing = sum(answer.n_competing for answer in answers.values())
    n_shards, found = max(answers) + 1, []
    for i, question in enumerate(questions):
        together = _concatenated({shard: answer.scored[i] for shard, answer in answers.items()}, n_shards)
        k = n_ranked(options.k, calibration)
        ranked: Ranked = rank(together, len(question.tokens), options, k, learned.lexical_weight)
        scores = scores_of(ranked, options, n_competing, calibration)
        keys, shards = np.divmod(ranked.keys[: len(scores)], n_shards)
        found.append(Found(list(zip(shards.tolist(), keys.tolist(), strict=True)), scores))
    return found


def _concatenated(scored: Mapping[int, Scored], n_shards: int) -> Scored:
    """The documents of all shards. A key names the key and the shard: equal scores are ordered by both."""
    parts = list(scored.values())
    keys = np.concatenate([part.keys * n_shards + shard for shard, part in scored.items()])
    return Scored(
        keys,
        _joined([part.maxsim for part in parts]),
        _joined([part.bm25 for part in parts]),
        parts[0].statistics,
    )


def _joined(parts: Sequence[FloatArray | None]) -> FloatArray | None:
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if present else None


def sum_statistics(shards: Sequence[Sequence[WordStatistics]]) -> list[WordStatistics]:
    """The statistics of all shards together, for each question."""
    return [reduce(add, of_question) for of_question in zip(*shards, strict=True)]


def joined_features(parts: Sequence[HitFeatures], ids: Sequence[str]) -> HitFeatures:
    """The features of documents of several shards, in the order of ``ids``."""
    place = {id: i for i, id in enumerate(id for part in parts for id in part.ids)}
    present = [id for id in ids if id in place]
    order: IntArray = np.array([place[id] for id in present], dtype=np.int64)
    vectors = np.concatenate([part.vectors for part in parts])
    matches = np.concatenate([part.matches for part in parts], axis=1)
    return HitFeatures(present, vectors[order], matches[:, order])


def selected_features(parts: Sequence[Features], order: IntArray) -> Features:
    """The features of candidates of several shards, in another order."""
    return Features(
        np.concatenate([part.maxsim for part in parts])[order],
        np.concatenate([part.matches for part in parts])[order],
        np.concatenate([part.contents for part in parts])[order],
    )


def joined_plan(plans: Mapping[int, SearchPlan]) -> SearchPlan:
    """The plan of a search in all shards: numbers are sums, the path is that of the largest shard."""
    largest = max(plans.values(), key=lambda plan: plan.n_documents)
    ways = {plan.path for plan in plans.values()}
    others = "" if len(ways) == 1 else f" Others take: {', '.join(sorted(ways - {largest.path}))}."
    shortlisted = [plan.n_shortlisted for plan in plans.values() if plan.n_shortlisted is not None]
    return replace(
        largest,
        n_documents=sum(plan.n_documents for plan in plans.values()),
        n_admitted=sum(plan.n_admitted for plan in plans.values()),
        n_candidates=sum(plan.n_candidates for plan in plans.values()),
        n_shortlisted=sum(shortlisted) if shortlisted else None,
        reason=f"The largest of {len(plans)} shards: {largest.reason}{others}",
    )

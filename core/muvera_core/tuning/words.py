"""Chooses BM25's share in hybrid searches by judged questions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev

from tqdm import tqdm

from muvera_core.collection import Collection, Writer
from muvera_core.evaluation import ndcg_at_k
from muvera_core.search import Question, SearchOptions, StageClock, search
from muvera_core.tuning.calibrating import Search

_WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.0)


def choose_lexical_weight(
    collection: Collection,
    writer: Writer,
    judged: Sequence[tuple[Question, Mapping[str, float]]],
    k: int,
    *,
    show_progress: bool,
) -> dict[str, float]:
    """Choose the share with the highest nDCG, and use it from now on.

    One share for all questions is chosen only if it beats the share that is chosen for each question by more than the
    standard error of their difference.

    Args:
        collection: the index, which has a word index.
        writer: the writer of the same index.
        judged: questions, and the grades of the documents that are relevant to each, by id.
        k: number of hits that count.
        show_progress: show a bar on standard error.

    Returns:
        What was measured: "hybrid_ndcg" of the choice, "hybrid_ndcg_by_question", and "lexical_weight" if one share for
        all questions was chosen.
    """
    with collection.locks.writing:
        collection.require_writable()
        measured = best_lexical_weight(
            lambda questions, options: search(collection, questions, options, StageClock()),
            judged,
            k,
            show_progress=show_progress,
        )
        writer.learn(replace(collection.learned, lexical_weight=measured.get("lexical_weight")))
        return measured


def best_lexical_weight(
    search: Search, judged: Sequence[tuple[Question, Mapping[str, float]]], k: int, *, show_progress: bool
) -> dict[str, float]:
    """Measure shares. Returns what ``choose_lexical_weight`` does. ``search`` finds the hits of each question."""

    def measured(weight: float | None) -> list[float]:
        options = SearchOptions(k, mode="hybrid", lexical_weight=weight, weighs_each_question=True)
        found = search([question for question, _ in judged], options)
        return [ndcg_at_k([hit.id for hit in hits], grades, k) for hits, (_, grades) in zip(found, judged, strict=True)]

    by_question = measured(None)
    bar = tqdm(_WEIGHTS, desc="share of words", unit="share", leave=False, disable=not show_progress)
    best, values = max(((weight, measured(weight)) for weight in bar), key=lambda each: fmean(each[1]))
    gains = [one - other for one, other in zip(values, by_question, strict=True)]
    error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    chosen = best if fmean(gains) > error else None
    found = {"hybrid_ndcg": fmean(by_question if chosen is None else values)}
    found["hybrid_ndcg_by_question"] = fmean(by_question)
    return found if chosen is None else found | {"lexical_weight": chosen}

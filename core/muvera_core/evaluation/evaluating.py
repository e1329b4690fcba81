"""Measures what an index finds, against exact MaxSim and labels, and the time that searches take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from statistics import fmean, median
from typing import Protocol, get_args

import numpy as np
from tqdm import tqdm

from muvera_core.batches import batched
from muvera_core.encoders import TokenEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.evaluation.measures import LABEL_MEASURES, fidelity_at_k
from muvera_core.evaluation.report import CurvePoint, Evaluation, QuestionResult
from muvera_core.hits import Hit
from muvera_core.maxsim import RANKED_TOGETHER
from muvera_core.search import SearchMode, StageClock
from muvera_core.token_embeddings import FloatArray
from muvera_core.validation import (
    require_choice,
    require_count,
    require_length,
    require_sequence,
    require_share,
    require_texts,
    shown,
)

# The curve shows these multiples of the number of candidates.
_CURVE = (0.125, 0.25, 0.5, 1, 2, 4)


# Finds the hits of each query with a number of candidates (None: unnamed), and times the stages.
_Search = Callable[[int | None], tuple[list[list[str]], list[StageClock]]]


class SearchableIndex(Protocol):
    """The part of ``MuveraIndex`` that an evaluation needs."""

    @property
    def encoder(self) -> TokenEncoder: ...

    def __len__(self) -> int: ...

    def default_candidates(self, k: int) -> int: ...

    def sizes(self) -> dict[str, int]: ...

    def search(
        self,
        query: str,
        k: int,
        n_candidates: int | None,
        *,
        mode: SearchMode,
        lexical_weight: float | None,
        clock: StageClock | None,
    ) -> list[Hit]: ...

    def search_embeddings(
        self, query_tokens: FloatArray, k: int, n_candidates: int | None, *, clock: StageClock | None
    ) -> list[Hit]: ...

    def search_embeddings_batch(
        self, query_tokens: Sequence[FloatArray], k: int, *, exact: bool
    ) -> list[list[Hit]]: ...


def evaluate(
    index: SearchableIndex,
    queries: Sequence[str],
    relevant: Sequence[Mapping[str, float] | Collection[str]] | None,
    k: int,
    n_candidates: int | None,
    *,
    mode: SearchMode = "late",
    lexical_weight: float | None = None,
    show_progress: bool = False,
) -> Evaluation:
    """See ``MuveraIndex.evaluate``."""
    bar = partial(tqdm, unit="query", leave=False, disable=not show_progress)
    queries, k = require_texts("queries", queries), require_count("k", k)
    mode = require_choice("mode", mode, get_args(SearchMode))
    lexical_weight = None if lexical_weight is None else require_share("lexical_weight", lexical_weight)
    if not queries or not len(index):
        raise InvalidInputError(
            f"expected at least one query and one document, got {len(queries)} and {len(index)}: pass example queries, "
            "and add documents to the index"
        )
    grades = None
    if relevant is not None:
        require_length("relevant", require_sequence("relevant", relevant), len(queries), "query")
        grades = [as_grades(ids) for ids in relevant]
    chosen: int | None = None if n_candidates is None else max(k, require_count("n_candidates", n_candidates))
    if chosen is None and mode != "lexical":  # which reranks no candidates
        chosen = max(k, index.default_candidates(k))

    encode_seconds, encoded = [], []
    for query in bar(queries, "encoding"):
        start = time.perf_counter()
        encoded.append(index.encoder.encode_queries([query])[0])
        encode_seconds.append(time.perf_counter() - start)
    exact: list[list[str]] = []
    with bar(total=len(encoded), desc="exact") as progress:
        for batch in batched(encoded, RANKED_TOGETHER):
            exact += [[hit.id for hit in hits] for hits in index.search_embeddings_batch(batch, k, exact=True)]
            progress.update(len(batch))

    if mode == "late" and lexical_weight is None:
        search = _searching_embeddings(index, encoded, k, encode_seconds)
    else:
        search = _searching_texts(index, queries, k, mode, lexical_weight)
    found, clocks = search(chosen)
    fidelity = _fidelities(found, exact, k)
    curve = []
    if chosen is not None and mode != "lexical":
        for n in bar(sorted({max(k, min(len(index), round(chosen * f))) for f in _CURVE}), "curve", unit="point"):
            hits, times = search(n)
            milliseconds = median(sum(t.seconds.values()) - t.seconds.get("encode", 0) for t in times) * 1000
            curve.append(CurvePoint(n, fmean(_fidelities(hits, exact, k)), milliseconds))
    measured, measured_exact = _against_labels(found, grades, k), _against_labels(exact, grades, k)
    return Evaluation(
        k=k,
        n_queries=len(queries),
        n_documents=len(index),
        n_candidates=0 if chosen is None else chosen,
        fidelity=fmean(fidelity),
        **{
            name: (fmean(measured[name]), fmean(measured_exact[name])) if name in measured else None
            for name in LABEL_MEASURES
        },
        milliseconds=_stages(clocks),
        n_bytes=index.sizes(),
        curve=tuple(curve),
        by_question=_by_question(queries, found, {"fidelity": fidelity, **measured}),
        mode=mode,
    )


def as_grades(ids: Mapping[str, float] | Collection[str]) -> Mapping[str, float]:
    """The grade of each relevant document, by id. A collection of ids has grades of 1."""
    if isinstance(ids, str):
        raise InvalidInputError(f"relevant must hold a collection of ids for each query, got {shown(ids)}")
    if not isinstance(ids, Mapping):
        return dict.fromkeys(ids, 1.0)
    for id, grade in ids.items():
        if not isinstance(grade, (int, float, np.integer, np.floating)) or not math.isfinite(grade):
            raise InvalidInputError(f"the grade of document {shown(id)} must be a finite number, got {shown(grade)}")
    return ids


def _searching_embeddings(
    index: SearchableIndex, encoded: Sequence[FloatArray], k: int, encode_seconds: Sequence[float]
) -> _Search:
    """Searches with token embeddings, so that no question is encoded again."""

    def search(n_candidates: int | None) -> tuple[list[list[str]], list[StageClock]]:
        found, clocks = [], []
        for tokens, seconds in zip(encoded, encode_seconds, strict=True):
            clocks.append(StageClock())
            clocks[-1].seconds["encode"] = seconds
            found.append([hit.id for hit in index.search_embeddings(tokens, k, n_candidates, clock=clocks[-1])])
        return found, clocks

    return search


def _searching_texts(
    index: SearchableIndex, queries: Sequence[str], k: int, mode: SearchMode, lexical_weight: float | None
) -> _Search:
    """Searches that look at the questions' words, too."""

    def search(n_candidates: int | None) -> tuple[list[list[str]], list[StageClock]]:
        found, clocks = [], []
        for query in queries:
            clocks.append(StageClock())
            hits = index.search(query, k, n_candidates, mode=mode, lexical_weight=lexical_weight, clock=clocks[-1])
            found.append([hit.id for hit in hits])
        return found, clocks

    return search


def _fidelities(found: Sequence[Sequence[str]], exact: Sequence[Sequence[str]], k: int) -> list[float]:
    return [fidelity_at_k(ids, best, k) for ids, best in zip(found, exact, strict=True)]


def _against_labels(
    found: Sequence[Sequence[str]], grades: Sequence[Mapping[str, float]] | None, k: int
) -> dict[str, list[float]]:
    """Each measure of each question's hits, by the measure's name. Nothing if there are no labels."""
    if grades is None:
        return {}
    return {
        name: [measure(ids, grade, k) for ids, grade in zip(found, grades, strict=True)]
        for name, measure in LABEL_MEASURES.items()
    }


def _by_question(
    queries: Sequence[str], found: Sequence[Sequence[str]], measured: Mapping[str, Sequence[float]]
) -> tuple[QuestionResult, ...]:
    rows = zip(*measured.values(), strict=True)
    return tuple(
        QuestionResult(query, tuple(ids), dict(zip(measured, row, strict=True)))
        for query, ids, row in zip(queries, found, rows, strict=True)
    )


def _stages(clocks: Sequence[StageClock]) -> dict[str, tuple[float, float]]:
    """Median and 95th percentile of each stage and of the whole search, in milliseconds."""
    names = dict.fromkeys(name for clock in clocks for name in clock.seconds)
    stages = {name: [clock.seconds.get(name, 0.0) for clock in clocks] for name in names}
    stages["total"] = [sum(times) for times in zip(*stages.values(), strict=True)]
    return {name: _percentiles(times) for name, times in stages.items()}


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile, in milliseconds."""
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return float(p50), float(p95)

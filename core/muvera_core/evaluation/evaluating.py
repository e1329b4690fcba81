"""Measures the share of exact MaxSim's best documents that an index finds, and the time that searches take."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from statistics import fmean, median
from typing import Protocol

import numpy as np
from tqdm import tqdm

from muvera_core.batches import batched
from muvera_core.encoders import TokenEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.evaluation.measures import mrr_at_k, ndcg_at_k, recall_at_k
from muvera_core.evaluation.report import CurvePoint, Evaluation
from muvera_core.hits import Hit
from muvera_core.maxsim import RANKED_TOGETHER
from muvera_core.search import StageClock
from muvera_core.token_embeddings import FloatArray
from muvera_core.validation import require_count, require_length, require_sequence, require_texts, shown

# The curve shows these multiples of the number of candidates.
_CURVE = (0.125, 0.25, 0.5, 1, 2, 4)


class SearchableIndex(Protocol):
    """The part of ``MuveraIndex`` that an evaluation needs."""

    @property
    def encoder(self) -> TokenEncoder: ...

    def __len__(self) -> int: ...

    def default_candidates(self, k: int) -> int: ...

    def sizes(self) -> dict[str, int]: ...

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
    show_progress: bool = False,
) -> Evaluation:
    """See ``MuveraIndex.evaluate``."""
    bar = partial(tqdm, unit="query", leave=False, disable=not show_progress)
    queries, k = require_texts("queries", queries), require_count("k", k)
    if not queries or not len(index):
        raise InvalidInputError(
            f"expected at least one query and one document, got {len(queries)} and {len(index)}: pass example queries, "
            "and add documents to the index"
        )
    grades = None
    if relevant is not None:
        require_length("relevant", require_sequence("relevant", relevant), len(queries), "query")
        grades = [_as_grades(ids) for ids in relevant]
    chosen = index.default_candidates(k) if n_candidates is None else require_count("n_candidates", n_candidates)
    chosen = max(k, chosen)

    encode_clocks, encoded = [], []
    for query in bar(queries, "encoding"):
        start = time.perf_counter()
        encoded.append(index.encoder.encode_queries([query])[0])
        encode_clocks.append(time.perf_counter() - start)
    exact: list[list[str]] = []
    with bar(total=len(encoded), desc="exact") as progress:
        for batch in batched(encoded, RANKED_TOGETHER):
            exact += [[hit.id for hit in hits] for hits in index.search_embeddings_batch(batch, k, exact=True)]
            progress.update(len(batch))
    found, clocks = _search_all(index, encoded, k, chosen)
    stages: dict[str, list[float]] = {"encode": encode_clocks}
    stages |= {name: [clock.seconds[name] for clock in clocks] for name in clocks[0].seconds}
    stages["total"] = [sum(times) for times in zip(*stages.values(), strict=True)]
    curve = []
    for n in bar(sorted({max(k, min(len(index), round(chosen * factor))) for factor in _CURVE}), "curve", unit="point"):
        hits, times = _search_all(index, encoded, k, n)
        curve.append(CurvePoint(n, _mean_recall(hits, exact, k), median(sum(t.seconds.values()) for t in times) * 1000))
    return Evaluation(
        k=k,
        n_queries=len(queries),
        n_documents=len(index),
        n_candidates=chosen,
        recall=_mean_recall(found, exact, k),
        ndcg=None if grades is None else (_mean(ndcg_at_k, found, grades, k), _mean(ndcg_at_k, exact, grades, k)),
        mrr=None if grades is None else (_mean(mrr_at_k, found, grades, k), _mean(mrr_at_k, exact, grades, k)),
        milliseconds={name: _percentiles(times) for name, times in stages.items()},
        n_bytes=index.sizes(),
        curve=tuple(curve),
    )


def _as_grades(ids: Mapping[str, float] | Collection[str]) -> Mapping[str, float]:
    if isinstance(ids, str):
        raise InvalidInputError(f"relevant must hold a collection of ids for each query, got {shown(ids)}")
    return ids if isinstance(ids, Mapping) else dict.fromkeys(ids, 1.0)


def _search_all(
    index: SearchableIndex, encoded: Sequence[FloatArray], k: int, n_candidates: int
) -> tuple[list[list[str]], list[StageClock]]:
    clocks = [StageClock() for _ in encoded]
    both = zip(encoded, clocks, strict=True)
    hits = [[hit.id for hit in index.search_embeddings(tokens, k, n_candidates, clock=clock)] for tokens, clock in both]
    return hits, clocks


def _mean_recall(found: Sequence[Sequence[str]], exact: Sequence[Sequence[str]], k: int) -> float:
    return fmean(recall_at_k(ids, best, k) for ids, best in zip(found, exact, strict=True))


def _mean(
    measure: Callable[[Sequence[str], Mapping[str, float], int], float],
    found: Sequence[Sequence[str]],
    grades: Sequence[Mapping[str, float]],
    k: int,
) -> float:
    return fmean(measure(ids, grade, k) for ids, grade in zip(found, grades, strict=True))


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile, in milliseconds."""
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return float(p50), float(p95)

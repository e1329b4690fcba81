"""Measures what an index finds, against exact MaxSim and labels, and how fast; reads collections to measure on."""

from __future__ import annotations

from muvera_core.evaluation.collections import BeirCollection, read_beir, read_queries
from muvera_core.evaluation.comparison import Comparison, compare
from muvera_core.evaluation.evaluating import as_grades, evaluate
from muvera_core.evaluation.measures import (
    fidelity_at_k,
    hit_rate_at_k,
    map_at_k,
    mrr_at_k,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
)
from muvera_core.evaluation.report import CurvePoint, Evaluation, QuestionResult

__all__ = [
    "BeirCollection",
    "Comparison",
    "CurvePoint",
    "Evaluation",
    "QuestionResult",
    "as_grades",
    "compare",
    "evaluate",
    "fidelity_at_k",
    "hit_rate_at_k",
    "map_at_k",
    "mrr_at_k",
    "ndcg_at_k",
    "precision_at_k",
    "read_beir",
    "read_queries",
    "recall_at_k",
]

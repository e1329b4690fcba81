"""Measures the recall and the speed of an index, and reads collections to measure on."""

from __future__ import annotations

from muvera_core.evaluation.collections import BeirCollection, read_beir, read_queries
from muvera_core.evaluation.evaluating import evaluate
from muvera_core.evaluation.measures import mrr_at_k, ndcg_at_k, recall_at_k
from muvera_core.evaluation.report import CurvePoint, Evaluation

__all__ = [
    "BeirCollection",
    "CurvePoint",
    "Evaluation",
    "evaluate",
    "mrr_at_k",
    "ndcg_at_k",
    "read_beir",
    "read_queries",
    "recall_at_k",
]

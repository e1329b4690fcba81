"""Fits an index to its documents: chooses stage one, and learns what scores say about relevance."""

from __future__ import annotations

from muvera_core.tuning.calibrating import MADE_SEED, MIN_DOCUMENTS, calibrate, measure_relevance, remove_calibration
from muvera_core.tuning.choose import measure_encoder
from muvera_core.tuning.corpus import Corpus
from muvera_core.tuning.made_questions import MadeQuestion, make_questions
from muvera_core.tuning.optimizing import narrow_tokens, optimize
from muvera_core.tuning.queries import Queries, queries_to_measure
from muvera_core.tuning.words import best_lexical_weight, choose_lexical_weight

__all__ = [
    "MADE_SEED",
    "MIN_DOCUMENTS",
    "Corpus",
    "MadeQuestion",
    "Queries",
    "best_lexical_weight",
    "calibrate",
    "choose_lexical_weight",
    "make_questions",
    "measure_encoder",
    "measure_relevance",
    "narrow_tokens",
    "optimize",
    "queries_to_measure",
    "remove_calibration",
]

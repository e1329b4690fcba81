"""One search goes from candidates through exact MaxSim to hits; passages, diversity, explanations, timings, too."""

from __future__ import annotations

from muvera_core.search.by_vector import search_by_vector, without_question
from muvera_core.search.coverage import cover
from muvera_core.search.cross_encoder import CrossEncoder, scoring_function
from muvera_core.search.diversity import diversify
from muvera_core.search.explanation import explain, read_document, read_image, similarity_maps
from muvera_core.search.judging import JudgingOptions, search_judged
from muvera_core.search.modes import Question
from muvera_core.search.neighbors import with_neighbors
from muvera_core.search.pipeline import make_plan, search
from muvera_core.search.plan import DiversityMethod, Fusion, SearchMode, SearchOptions, SearchPath, SearchPlan
from muvera_core.search.query_reduction import QueryReduction, require_query_reduction
from muvera_core.search.reranking import rerank, sharing_documents, shortlist
from muvera_core.search.stage_clock import StageClock

__all__ = [
    "CrossEncoder",
    "DiversityMethod",
    "Fusion",
    "JudgingOptions",
    "QueryReduction",
    "Question",
    "SearchMode",
    "SearchOptions",
    "SearchPath",
    "SearchPlan",
    "StageClock",
    "cover",
    "diversify",
    "explain",
    "make_plan",
    "read_document",
    "read_image",
    "require_query_reduction",
    "rerank",
    "scoring_function",
    "search",
    "search_by_vector",
    "search_judged",
    "sharing_documents",
    "shortlist",
    "similarity_maps",
    "with_neighbors",
    "without_question",
]

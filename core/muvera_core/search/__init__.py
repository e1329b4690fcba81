"""One search goes from candidates through exact MaxSim to hits; diversity, explanations and timings are here, too."""

from __future__ import annotations

from muvera_core.search.by_vector import search_by_vector, without_question
from muvera_core.search.diversity import diversify
from muvera_core.search.explanation import explain, read_document, read_image, similarity_maps
from muvera_core.search.pipeline import make_plan, search
from muvera_core.search.plan import Fusion, SearchMode, SearchOptions, SearchPath, SearchPlan
from muvera_core.search.reranking import rerank, sharing_documents, shortlist
from muvera_core.search.stage_clock import StageClock

__all__ = [
    "Fusion",
    "SearchMode",
    "SearchOptions",
    "SearchPath",
    "SearchPlan",
    "StageClock",
    "diversify",
    "explain",
    "make_plan",
    "read_document",
    "read_image",
    "rerank",
    "search",
    "search_by_vector",
    "sharing_documents",
    "shortlist",
    "similarity_maps",
    "without_question",
]

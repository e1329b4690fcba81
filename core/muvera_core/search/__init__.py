"""One search goes from candidates through exact MaxSim to hits; diversity, explanations and timings are here, too."""

from __future__ import annotations

from muvera_core.search.diversity import diversify
from muvera_core.search.explanation import explain
from muvera_core.search.pipeline import SearchOptions, search
from muvera_core.search.reranking import rerank, sharing_documents
from muvera_core.search.stage_clock import StageClock

__all__ = ["SearchOptions", "StageClock", "diversify", "explain", "rerank", "search", "sharing_documents"]

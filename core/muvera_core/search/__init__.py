"""One search from end to end: candidates, exact MaxSim, documents. Also diversity, explanations and timings."""

from __future__ import annotations

from muvera_core.search.diversity import diversify
from muvera_core.search.explanation import explain
from muvera_core.search.pipeline import SearchOptions, search
from muvera_core.search.reranking import rerank, sharing_documents
from muvera_core.search.stage_clock import StageClock

__all__ = ["SearchOptions", "StageClock", "diversify", "explain", "rerank", "search", "sharing_documents"]

"""Exact MaxSim on the CPU turns rows of token vectors into scores and ranks them."""

from __future__ import annotations

from muvera_core.maxsim.compiled import row_checksums
from muvera_core.maxsim.exact import maxsim, maxsim_of_many, maxsim_scaled, score_documents
from muvera_core.maxsim.layout import RowLayout, RowPrecision, RowSource, unpack
from muvera_core.maxsim.ranking import RANKED_TOGETHER, Ranking, normalize_scores, ranked

__all__ = [
    "RANKED_TOGETHER",
    "Ranking",
    "RowLayout",
    "RowPrecision",
    "RowSource",
    "maxsim",
    "maxsim_of_many",
    "maxsim_scaled",
    "normalize_scores",
    "ranked",
    "row_checksums",
    "score_documents",
    "unpack",
]

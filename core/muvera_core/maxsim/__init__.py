"""Exact MaxSim on the CPU turns rows of token vectors into scores and ranks them."""

from __future__ import annotations

from muvera_core.maxsim.cpu import maxsim, maxsim_of_many, maxsim_scaled
from muvera_core.maxsim.ranking import RANKED_TOGETHER, Ranking, normalize_scores, ranked

__all__ = ["RANKED_TOGETHER", "Ranking", "maxsim", "maxsim_of_many", "maxsim_scaled", "normalize_scores", "ranked"]

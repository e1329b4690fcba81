"""Gives FDE vectors of texts for other vector databases, and scores texts by exact MaxSim, without an index."""

from __future__ import annotations

from muvera_core.standalone.scoring import score_texts
from muvera_core.standalone.text_encoder import TextEncoder

__all__ = ["TextEncoder", "score_texts"]

"""Token encoders: text in, one vector per token out."""

from __future__ import annotations

from muvera_core.encoders.precomputed import PrecomputedEmbeddings
from muvera_core.encoders.protocol import TokenEncoder

__all__ = ["PrecomputedEmbeddings", "TokenEncoder"]

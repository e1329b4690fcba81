"""Token encoders: text in, one vector per token out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muvera_core.encoders.precomputed import PrecomputedEmbeddings
from muvera_core.encoders.protocol import TokenEncoder

if TYPE_CHECKING:
    from muvera_core.encoders.bundled import BundledEncoder
    from muvera_core.encoders.colbert import ColBERTEncoder

__all__ = ["BundledEncoder", "ColBERTEncoder", "PrecomputedEmbeddings", "TokenEncoder"]


def __getattr__(name: str) -> Any:
    # Each model's libraries are slow to import: they wait until their encoder is asked for.
    if name == "BundledEncoder":
        from muvera_core.encoders.bundled import BundledEncoder

        return BundledEncoder
    if name == "ColBERTEncoder":
        from muvera_core.encoders.colbert import ColBERTEncoder

        return ColBERTEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

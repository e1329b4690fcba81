"""Token encoders turn a text, in windows if it is long, into one vector per token; pooling merges similar tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muvera_core.encoders.bundled_fingerprint import BUNDLED_DIMENSION
from muvera_core.encoders.callable import CallableEncoder
from muvera_core.encoders.default import PACKAGED_ENCODERS, default_encoder, packaged_encoder
from muvera_core.encoders.description import describe_encoder, describe_mismatch
from muvera_core.encoders.model_folders import load_encoder
from muvera_core.encoders.precomputed import PrecomputedEmbeddings, is_precomputed
from muvera_core.encoders.protocol import (
    ImageEncoder,
    TokenEncoder,
    is_image_encoder,
    require_encoder,
    require_image_encoder,
)
from muvera_core.encoders.texts import naming, unreported, warn
from muvera_core.encoders.token_pooling import (
    MAX_POOL_FACTOR,
    pool_tokens,
    pooled_length,
    require_pool_factor,
    require_scipy,
)

if TYPE_CHECKING:
    from muvera_core.encoders.bundled import BundledEncoder
    from muvera_core.encoders.colbert import ColBERTEncoder
    from muvera_core.encoders.multilingual import MultilingualEncoder
    from muvera_core.encoders.onnx.encoder import OnnxEncoder
    from muvera_core.encoders.onnx.export import export_onnx
    from muvera_core.encoders.sentence_transformer.encoder import SentenceTransformerEncoder

__all__ = [
    "BUNDLED_DIMENSION",
    "MAX_POOL_FACTOR",
    "PACKAGED_ENCODERS",
    "BundledEncoder",
    "CallableEncoder",
    "ColBERTEncoder",
    "ImageEncoder",
    "MultilingualEncoder",
    "OnnxEncoder",
    "PrecomputedEmbeddings",
    "SentenceTransformerEncoder",
    "TokenEncoder",
    "default_encoder",
    "describe_encoder",
    "describe_mismatch",
    "export_onnx",
    "is_image_encoder",
    "is_precomputed",
    "load_encoder",
    "naming",
    "packaged_encoder",
    "pool_tokens",
    "pooled_length",
    "require_encoder",
    "require_image_encoder",
    "require_pool_factor",
    "require_scipy",
    "unreported",
    "warn",
]


def __getattr__(name: str) -> Any:
    # The models' libraries are slow to import, so they are imported when their encoder is first used.
    if name == "BundledEncoder":
        from muvera_core.encoders.bundled import BundledEncoder

        return BundledEncoder
    if name == "ColBERTEncoder":
        from muvera_core.encoders.colbert import ColBERTEncoder

        return ColBERTEncoder
    if name == "OnnxEncoder":
        from muvera_core.encoders.onnx.encoder import OnnxEncoder

        return OnnxEncoder
    if name == "export_onnx":
        from muvera_core.encoders.onnx.export import export_onnx

        return export_onnx
    if name == "SentenceTransformerEncoder":
        from muvera_core.encoders.sentence_transformer.encoder import SentenceTransformerEncoder

        return SentenceTransformerEncoder
    if name == "MultilingualEncoder":
        from muvera_core.encoders.multilingual import MultilingualEncoder

        return MultilingualEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Token encoders turn a text, in windows if it is long, into a vector per token; pruning and pooling leave fewer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from muvera_core.encoders.callable import CallableEncoder
from muvera_core.encoders.description import describe_encoder, describe_mismatch
from muvera_core.encoders.model_folders import load_encoder
from muvera_core.encoders.named import named_encoder
from muvera_core.encoders.packaged.default import PACKAGED_ENCODERS, default_encoder, packaged_encoder
from muvera_core.encoders.packaged.fingerprints import BUNDLED_DIMENSION
from muvera_core.encoders.precomputed import PrecomputedEmbeddings, is_precomputed
from muvera_core.encoders.protocol import (
    ImageEncoder,
    TokenEncoder,
    is_image_encoder,
    require_encoder,
    require_image_encoder,
)
from muvera_core.encoders.text.naming import GivenWarning, collecting_warnings, naming, unreported, warn
from muvera_core.encoders.token_pooling import (
    MAX_POOL_FACTOR,
    pool_tokens,
    pooled_length,
    require_pool_factor,
    require_scipy,
)
from muvera_core.encoders.token_pruning import LEAST_KEPT, prune_tokens, require_keep_tokens
from muvera_core.encoders.token_reduction import TokenReduction

if TYPE_CHECKING:
    from muvera_core.encoders.colbert_ai.encoder import ColBERTEncoder
    from muvera_core.encoders.onnx.encoder import OnnxEncoder
    from muvera_core.encoders.onnx.export import export_onnx
    from muvera_core.encoders.packaged.bundled import BundledEncoder
    from muvera_core.encoders.packaged.multilingual import MultilingualEncoder
    from muvera_core.encoders.sentence_transformer.encoder import SentenceTransformerEncoder

__all__ = [
    "BUNDLED_DIMENSION",
    "LEAST_KEPT",
    "MAX_POOL_FACTOR",
    "PACKAGED_ENCODERS",
    "BundledEncoder",
    "CallableEncoder",
    "ColBERTEncoder",
    "GivenWarning",
    "ImageEncoder",
    "MultilingualEncoder",
    "OnnxEncoder",
    "PrecomputedEmbeddings",
    "SentenceTransformerEncoder",
    "TokenEncoder",
    "TokenReduction",
    "collecting_warnings",
    "default_encoder",
    "describe_encoder",
    "describe_mismatch",
    "export_onnx",
    "is_image_encoder",
    "is_precomputed",
    "load_encoder",
    "named_encoder",
    "naming",
    "packaged_encoder",
    "pool_tokens",
    "pooled_length",
    "prune_tokens",
    "require_encoder",
    "require_image_encoder",
    "require_keep_tokens",
    "require_pool_factor",
    "require_scipy",
    "unreported",
    "warn",
]


# The libraries of models are slow to import, so they are imported when their encoder is first used.
_LAZY = {
    "BundledEncoder": "packaged.bundled",
    "ColBERTEncoder": "colbert_ai.encoder",
    "MultilingualEncoder": "packaged.multilingual",
    "OnnxEncoder": "onnx.encoder",
    "SentenceTransformerEncoder": "sentence_transformer.encoder",
    "export_onnx": "onnx.export",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)

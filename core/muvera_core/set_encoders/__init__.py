"""Set encoders turn a set of token vectors into one vector; inner products of these vectors approximate MaxSim."""

from __future__ import annotations

from muvera_core.set_encoders.fde import FixedDimensionalEncoder
from muvera_core.set_encoders.fde_config import FDEConfig, resolve_fde_config
from muvera_core.set_encoders.fde_matrices import FDEMatrices
from muvera_core.set_encoders.lemur import LearnedMatrices, LearnedSetEncoder, LearnedSetEncoderConfig
from muvera_core.set_encoders.protocol import DocumentEncoder, SetEncoder
from muvera_core.set_encoders.pseudo_queries import QUERY_TOKENS, drawn_length, part_of_text, run_of_tokens

__all__ = [
    "QUERY_TOKENS",
    "DocumentEncoder",
    "FDEConfig",
    "FDEMatrices",
    "FixedDimensionalEncoder",
    "LearnedMatrices",
    "LearnedSetEncoder",
    "LearnedSetEncoderConfig",
    "SetEncoder",
    "drawn_length",
    "part_of_text",
    "resolve_fde_config",
    "run_of_tokens",
]

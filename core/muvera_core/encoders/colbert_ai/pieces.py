"""Lays out a ColBERT model's input as colbert-ai does: markers, windows of long documents, masks of short queries."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from muvera_core.encoders.text.layout import Expansion, TextFormat
from muvera_core.encoders.text.windows import OVERLAP_SHARE

# The markers around every text: [CLS], [Q] or [D], and [SEP].
N_MARKERS = 3


@dataclass(frozen=True)
class ColBERTFormats:
    """What a checkpoint's inputs look like, and the id of [PAD]."""

    document: TextFormat
    query: TextFormat
    pad: int


def input_formats(checkpoint: Any) -> ColBERTFormats:
    """Read the formats from a colbert-ai ``Checkpoint``."""
    tokenizer, config = checkpoint.raw_tokenizer, checkpoint.colbert_config
    cls, sep, mask, pad = (int(getattr(tokenizer, f"{name}_token_id")) for name in ("cls", "sep", "mask", "pad"))
    window = int(config.doc_maxlen)
    document = TextFormat(
        before=(cls, int(checkpoint.doc_tokenizer.D_marker_token_id)),
        after=(sep,),
        whole=window,
        window=window,
        overlap=int((window - N_MARKERS) * OVERLAP_SHARE),
        kept_specials="ends",
        skipped=frozenset({pad, *checkpoint.skiplist}),
        unknown="word",
    )
    query = TextFormat(
        before=(cls, int(checkpoint.query_tokenizer.Q_marker_token_id)),
        after=(sep,),
        # The encoder limits queries to the positions of the model.
        whole=sys.maxsize,
        window=sys.maxsize,
        overlap=0,
        kept_specials="ends",
        # colbert-ai replaces every [PAD] of a query with [MASK], also one that the text contains.
        replaced={pad: mask},
        expansion=Expansion(mask, int(config.query_maxlen), bool(config.attend_to_mask_tokens)),
        unknown="word",
    )
    return ColBERTFormats(document, query, pad)

"""Exact MaxSim over texts that are not in an index, to rerank the results of another retriever."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muvera_core.batches import batched
from muvera_core.encoders import TokenEncoder, naming, require_encoder
from muvera_core.maxsim import maxsim, normalize_scores
from muvera_core.token_embeddings import FloatArray
from muvera_core.validation import (
    has_visible_text,
    repaired,
    require_count,
    require_encoded,
    require_string,
    require_strings,
)


def score_texts(
    encoder: TokenEncoder, query: str, texts: Sequence[str], *, batch_size: int = 64
) -> tuple[FloatArray, FloatArray]:
    """Score texts against a query by exact MaxSim.

    Each call encodes all texts, which takes a hundred times as long as scoring them. An index encodes them only once.

    Args:
        encoder: makes the token vectors.
        query: the query. If it has no visible character, all scores are 0.
        texts: the texts. A text without a visible character matches nothing and scores 0.
        batch_size: texts per call of the encoder.

    Returns:
        The scores (MaxSim) and the normalized scores (mean per query token, clipped to [0, 1]), float32, shape
        (texts,) each.

    Raises:
        InvalidInputError: the query is not a string, ``texts`` is not a list of strings, ``batch_size`` is below 1, or
            ``encoder`` is not an encoder.
        EncoderError: the encoder returned something unusable.
    """
    encoder = require_encoder(encoder)
    batch_size = require_count("batch_size", batch_size)
    query, texts = repaired(require_string("query", query)), require_strings("texts", texts)
    scores = np.zeros(len(texts), dtype=np.float32)
    if not has_visible_text(query):
        return scores, scores.copy()
    query_tokens = require_encoded(encoder.encode_queries([query]), 1, encoder.dimension).vectors
    visible = [i for i, text in enumerate(texts) if has_visible_text(text)]
    for batch in batched(visible, batch_size):
        with naming(batch):
            tokens = encoder.encode_documents([texts[i] for i in batch])
        scores[batch] = maxsim(query_tokens, require_encoded(tokens, len(batch), encoder.dimension))
    return scores, normalize_scores(scores, len(query_tokens))

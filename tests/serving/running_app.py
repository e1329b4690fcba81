"""An index of a few animals, and an encoder that needs no model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from muvera_core import MuveraIndex
from muvera_core.encoders import CallableEncoder
from muvera_core.token_embeddings import FloatArray, IntArray

DIMENSION = 16
TEXTS = [
    "Owls hunt at night. They hear mice under the snow. Their wings make no sound at all.",
    "Ants live in colonies and carry leaves.",
    "Herons stand in shallow water, and wait for fish.",
    "Bats hunt at night, too, by the echo of their calls.",
    "Fish sleep with open eyes. Some of them in shallow water.",
    "Storks nest on chimneys; café owners like them.",
]
IDS = ["owl", "ant", "heron", "bat", "fish", "stork"]
METADATAS: list[dict[str, Any]] = [
    {"legs": 2, "seen": datetime(2024, 5, 1, 22, 30, tzinfo=UTC), "tags": ["bird", "night"]},
    {"legs": 6, "seen": date(2023, 7, 1), "tags": ["insect"], "size": 0.1 + 0.2},
    {"legs": 2, "seen": None, "nested": {"a": [1, {"b": "ü"}], "big": 2**62}},
    {"legs": 2, "half": "x\ud800y", "nan": float("nan")},
    {"legs": 0, "huge": 1e300},
    {},
]


def _vectors(texts: Sequence[str]) -> list[FloatArray]:
    return [np.stack([_vector(word) for word in text.lower().split() or [""]]) for text in texts]


def _vector(word: str) -> FloatArray:
    seed = int.from_bytes(hashlib.blake2b(word.strip(".,;").encode(), digest_size=8).digest())
    return np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)


def _spans(text: str) -> IntArray:
    words, start = [], 0
    for word in text.split():
        start = text.index(word, start)
        words.append((start, start + len(word)))
        start += len(word)
    return np.array(words or [(0, 0)], dtype=np.int64)


def word_encoder() -> CallableEncoder:
    """Each word is a token, whose vector is drawn by its letters."""
    return CallableEncoder(
        _vectors, _vectors, dimension=DIMENSION, name="words", query_spans=_spans, document_spans=_spans
    )


def animals() -> MuveraIndex:
    """An index in memory."""
    index = MuveraIndex.create(None, word_encoder())
    index.add(TEXTS, IDS, METADATAS)
    return index

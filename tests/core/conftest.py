from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from gpus import device as device  # a fixture, as is the next one
from gpus import gpu as gpu

from muvera_core import TokenEmbeddings, maxsim
from muvera_core.encoders import BundledEncoder
from muvera_core.evaluation.collections import BeirCollection


@dataclass(frozen=True)
class EncodedPassages:
    """The first 600 passages of Natural Questions and questions that they answer, as token embeddings."""

    ids: list[str]
    texts: list[str]
    documents: TokenEmbeddings
    questions: list[str]
    asked: TokenEmbeddings


@pytest.fixture(scope="session")
def passages(encoder: BundledEncoder, nq: BeirCollection, nq_tokens: TokenEmbeddings) -> EncodedPassages:
    ids, texts = nq.ids[:600], nq.texts[:600]
    answered = {next(iter(relevant)): nq.queries[query] for query, relevant in nq.relevance.items()}
    questions = [answered[id] for id in ids if id in answered][:80]
    return EncodedPassages(ids, texts, nq_tokens, questions, encoder.encode_queries(questions))


@pytest.fixture(scope="session")
def exact_top_10(passages: EncodedPassages) -> np.ndarray:
    """Places of the ten best passages of each question by exact MaxSim, shape (questions, 10)."""
    scores = [maxsim(tokens, passages.documents) for tokens in passages.asked]
    return np.argsort(-np.stack(scores), axis=1)[:, :10]

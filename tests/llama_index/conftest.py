from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from llama_index.retrievers.muvera import MuveraVectorStore

from muvera_core import MuveraIndex, TokenEmbeddings
from muvera_core.token_embeddings import FloatArray, IntArray


class WordEncoder:
    """A stand-in for an encoder: one fixed random vector per word, so that only equal words match."""

    dimension = 32
    fingerprint = "words"

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        return TokenEmbeddings.from_list([np.stack([self._vector(w) for w in _words(text)]) for text in texts])

    encode_queries = encode_documents

    def document_spans(self, text: str) -> IntArray:
        return np.array([m.span() for m in re.finditer(r"\w+", text)] or [(0, 0)], dtype=np.int64)

    query_spans = document_spans

    def _vector(self, word: str) -> FloatArray:
        vector = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(self.dimension, dtype=np.float32)
        return vector / np.linalg.norm(vector)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower()) or [""]


@pytest.fixture(scope="session")
def words() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def make_store(words: WordEncoder) -> Iterator[Callable[[], MuveraVectorStore]]:
    """Makes empty vector stores in memory, and closes their indexes afterwards."""
    made: list[MuveraVectorStore] = []

    def make() -> MuveraVectorStore:
        made.append(MuveraVectorStore(MuveraIndex.create(None, words)))
        return made[-1]

    yield make
    for store in made:
        store.client.close()


@pytest.fixture
def store(make_store: Callable[[], MuveraVectorStore]) -> MuveraVectorStore:
    return make_store()

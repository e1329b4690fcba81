"""Search with a model of your own: any function that turns a text into one vector per token.

    python examples/recipes/own_model.py

The model here knows nothing of meaning: a word's vector comes from its pieces of three characters, so that words of
similar spelling match. Put yours in the place of ``encode``. Other recipes load models of sentence-transformers and in
ONNX format, or ask a service.
"""

from __future__ import annotations

import re
import zlib

import numpy as np
import numpy.typing as npt

from muvera_core import MuveraIndex
from muvera_core.encoders import CallableEncoder

DIMENSION = 256
WORD = re.compile(r"\w+")
PASSAGES = {
    "owl": "The tawny owl hunts at night.",
    "ant": "Leafcutter ants live in colonies.",
    "rye": "Sourdough rye bread keeps for a week.",
}


def encode(texts: list[str]) -> list[npt.NDArray[np.float32]]:
    """For each text one vector per word, of unit length: an array of shape (words, DIMENSION)."""
    return [np.stack([vector_of(word) for word in WORD.findall(text)]) for text in texts]


def vector_of(word: str) -> npt.NDArray[np.float32]:
    vector = np.zeros(DIMENSION, dtype=np.float32)
    padded = f"<{word.lower()}>"
    for start in range(len(padded) - 2):
        vector[zlib.crc32(padded[start : start + 3].encode()) % DIMENSION] += 1
    return vector / np.linalg.norm(vector)


def spans_of(text: str) -> list[tuple[int, int]]:
    """Where each word is, so that ``explain`` can name it."""
    return [word.span() for word in WORD.finditer(text)]


def main() -> None:
    encoder = CallableEncoder(
        encode, encode, DIMENSION, name="trigrams-1", query_spans=spans_of, document_spans=spans_of
    )
    with MuveraIndex.create(None, encoder) as index:
        index.add(list(PASSAGES.values()), ids=list(PASSAGES))
        question = "leaf cuter colonys"
        for hit in index.search(question, k=2):
            print(f"{hit.normalized_score:.2f} {hit.id}: {hit.text}")
        for match in index.explain(question, "ant"):
            print(f"  {match.query_token} → {match.document_token} ({match.similarity:.2f})")


if __name__ == "__main__":
    main()

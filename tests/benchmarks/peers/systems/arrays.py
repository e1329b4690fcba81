"""Token embeddings in a folder, for systems that score tokens but keep no index of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peers.protocol import Documents, FloatArray


def save(documents: Documents, folder: Path) -> None:
    """Leave the tokens in the folder, in float32."""
    np.save(folder / "vectors.npy", documents.vectors)
    np.save(folder / "offsets.npy", documents.offsets)


def load(folder: Path) -> Documents:
    """Read into memory what ``save`` has left."""
    return Documents(np.load(folder / "vectors.npy"), np.load(folder / "offsets.npy"))


def best(scores: FloatArray, k: int) -> list[int]:
    """Numbers of the ``k`` highest scores, highest first."""
    k = min(k, len(scores))
    found = np.argpartition(-scores, k - 1)[:k]
    return [int(i) for i in found[np.argsort(-scores[found])]]


def maxsim(query: FloatArray, vectors: FloatArray, starts: np.typing.NDArray[np.int64]) -> FloatArray:
    """MaxSim of a query with documents whose tokens follow each other.

    Args:
        query: shape (query tokens, dimension).
        vectors: tokens of all documents, shape (tokens, dimension).
        starts: place of each document's first token, shape (documents,).

    Returns:
        float32, shape (documents,).
    """
    scores: FloatArray = np.maximum.reduceat(query @ vectors.T, starts, axis=1).sum(axis=0)
    return scores

"""Fewer token vectors per document: tokens that are alike are clustered, and each cluster becomes one vector.

Clavié, Chaffin and Adams: Reducing the Footprint of Multi-Vector Retrieval with Minimal Performance Impact via Token
Pooling, arXiv 2409.14683. Ward's method joins tokens until one in ``pool_factor`` is left, and the first token, which
in BERT-like models is a marker that stands for the whole text, is left as it is.

Two things differ from the code that the authors and PyLate have, because more of what exact MaxSim finds is kept that
way (``docs/benchmarks.md``): tokens are clustered by their own directions, not by how far they are from all others, and
a cluster's mean is brought to its tokens' length, since a mean of unlike tokens is shorter than they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from muvera_core.errors import InvalidInputError, MissingExtraError
from muvera_core.token_embeddings import MAX_MAGNITUDE, FloatArray, IntArray, TokenEmbeddings, unit_length
from muvera_core.validation import require_count

MAX_POOL_FACTOR = 16
# Clustering takes time and memory that grow with the square of the number of tokens: 4 MB for so many.
_MAX_STRETCH = 1024


def require_pool_factor(value: object) -> int:
    """A whole number from 1, which leaves tokens as they are, to ``MAX_POOL_FACTOR``."""
    factor = require_count("pool_factor", value)
    if factor > MAX_POOL_FACTOR:
        raise InvalidInputError(f"pool_factor must be at most {MAX_POOL_FACTOR}, got {factor}")
    return factor


def require_scipy() -> Any:
    """SciPy, with its clustering. Raises MissingExtraError where it isn't installed."""
    try:
        import scipy.cluster.hierarchy
        import scipy.spatial.distance
    except ImportError as error:
        raise MissingExtraError("pooling tokens needs SciPy: pip install 'muvera-core[pooling]'") from error
    return scipy


def pool_tokens(embeddings: TokenEmbeddings, pool_factor: int) -> TokenEmbeddings:
    """Merge each document's tokens that are alike, until about one in ``pool_factor`` is left.

    A document depends on nothing else in the batch. One of more than 1,024 tokens is pooled in consecutive stretches of
    at most as many.

    Args:
        embeddings: token vectors of documents.
        pool_factor: 1 changes nothing, 2 halves their number.

    Returns:
        ``pooled_length`` vectors for each document, in the order of the first token of each cluster.

    Raises:
        InvalidInputError: a factor that isn't a whole number from 1 to ``MAX_POOL_FACTOR``.
        MissingExtraError: SciPy isn't installed, and the factor isn't 1.
    """
    if require_pool_factor(pool_factor) == 1:
        return embeddings
    return TokenEmbeddings.from_list([_pooled(tokens, pool_factor) for tokens in embeddings], embeddings.dimension)


def pooled_length(n_tokens: int, pool_factor: int) -> int:
    """How many vectors ``pool_tokens`` leaves of a document of so many."""
    return min(1, n_tokens) + sum(_n_clusters(end - start, pool_factor) for start, end in _stretches(n_tokens))


def _stretches(n_tokens: int) -> Iterator[tuple[int, int]]:
    """Starts and ends of what is pooled together: stretches of nearly equal length, behind the first token."""
    n_pooled = n_tokens - 1
    n_stretches = -(-n_pooled // _MAX_STRETCH)
    for i in range(n_stretches):
        yield 1 + n_pooled * i // n_stretches, 1 + n_pooled * (i + 1) // n_stretches


def _n_clusters(n_tokens: int, pool_factor: int) -> int:
    return max(1, n_tokens // pool_factor)


def _pooled(tokens: FloatArray, pool_factor: int) -> FloatArray:
    """The vectors that stand for a document's tokens, shape (pooled_length, dimension)."""
    parts = [tokens[:1]]
    for start, end in _stretches(len(tokens)):
        stretch = tokens[start:end]
        parts.append(_means(stretch, _clusters(stretch, _n_clusters(end - start, pool_factor))))
    return np.concatenate(parts)


def _clusters(tokens: FloatArray, n_clusters: int) -> IntArray:
    """The number of each token's cluster, from 1 to exactly ``n_clusters``, shape (tokens,)."""
    if len(tokens) == 1:
        return np.ones(1, dtype=np.int64)
    scipy = require_scipy()
    # Given vectors, linkage would take some for distances.
    distances = scipy.spatial.distance.pdist(unit_length(tokens))
    tree = scipy.cluster.hierarchy.linkage(distances, method="ward")
    # Heights become ranks, since a cut by height takes all merges of one height or none.
    tree[:, 2] = np.arange(len(tree))
    n_merges = len(tokens) - n_clusters
    labels: IntArray = scipy.cluster.hierarchy.fcluster(tree, n_merges - 0.5, criterion="distance").astype(np.int64)
    return labels


def _means(tokens: FloatArray, labels: IntArray) -> FloatArray:
    """One vector for each cluster: the direction of its tokens' mean, at their mean length."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=0))
    sums = np.add.reduceat(tokens[order], starts, axis=0)
    lengths = np.add.reduceat(np.linalg.norm(tokens[order], axis=1), starts)
    means = unit_length(sums) * (lengths / np.diff(starts, append=len(tokens)))[:, None]
    by_first_token = np.argsort(order[starts])
    # Vectors as long as can be stored may have a direction in which they can't be as long.
    return np.clip(means[by_first_token], -MAX_MAGNITUDE, MAX_MAGNITUDE).astype(np.float32)

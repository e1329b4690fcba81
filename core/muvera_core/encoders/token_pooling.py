"""Token pooling: similar tokens of a document are clustered, and each cluster becomes one vector.

Clavié, Chaffin and Adams: Reducing the Footprint of Multi-Vector Retrieval with Minimal Performance Impact via Token
Pooling, arXiv 2409.14683. Ward's method merges tokens until one in ``pool_factor`` is left. The first token is kept as
it is: in BERT-like models it is a marker that stands for the whole text.

Two things differ from the code of the authors and of PyLate, because they keep more of the documents that exact MaxSim
finds (``docs/benchmarks.md``). Tokens are clustered by their own directions, not by their distances from all other
tokens. A cluster's mean is scaled to the length of its tokens, since the mean of different tokens is shorter than they
are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from muvera_core.errors import InvalidInputError, MissingExtraError
from muvera_core.token_embeddings import MAX_MAGNITUDE, FloatArray, IntArray, TokenEmbeddings, unit_length
from muvera_core.validation import require_count

MAX_POOL_FACTOR = 16
# Most tokens that are clustered together. Time and memory grow with the square of their number: 4 MB for 1,024.
_MAX_STRETCH = 1024


def require_pool_factor(value: object) -> int:
    """A whole number from 1 (no pooling) to ``MAX_POOL_FACTOR``. Raises InvalidInputError otherwise."""
    factor = require_count("pool_factor", value)
    if factor > MAX_POOL_FACTOR:
        raise InvalidInputError(f"pool_factor must be at most {MAX_POOL_FACTOR}, got {factor}")
    return factor


def require_scipy() -> Any:
    """SciPy with its clustering modules. Raises MissingExtraError if it is not installed."""
    try:
        import scipy.cluster.hierarchy
        import scipy.spatial.distance
    except ImportError as error:
        raise MissingExtraError("pooling tokens needs SciPy: pip install 'muvera-core[pooling]'") from error
    return scipy


def pool_tokens(embeddings: TokenEmbeddings, pool_factor: int) -> TokenEmbeddings:
    """Merge similar tokens of each document until about one in ``pool_factor`` is left.

    A document's result does not depend on the other documents. A document of more than 1,024 tokens is pooled in
    consecutive stretches of at most 1,024.

    Args:
        embeddings: token vectors of documents.
        pool_factor: 1 keeps all tokens, 2 halves their number.

    Returns:
        ``pooled_length`` vectors for each document, in the order of the first token of each cluster.

    Raises:
        InvalidInputError: the factor is not a whole number from 1 to ``MAX_POOL_FACTOR``.
        MissingExtraError: the factor is not 1, and SciPy is not installed.
    """
    if require_pool_factor(pool_factor) == 1:
        return embeddings
    return TokenEmbeddings.from_list([_pooled(tokens, pool_factor) for tokens in embeddings], embeddings.dimension)


def pooled_length(n_tokens: int, pool_factor: int) -> int:
    """The number of vectors that ``pool_tokens`` returns for a document of ``n_tokens``."""
    return min(1, n_tokens) + sum(_n_clusters(end - start, pool_factor) for start, end in _stretches(n_tokens))


def _stretches(n_tokens: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each stretch. The stretches have nearly equal lengths and omit the first token."""
    n_pooled = n_tokens - 1
    n_stretches = -(-n_pooled // _MAX_STRETCH)
    for i in range(n_stretches):
        yield 1 + n_pooled * i // n_stretches, 1 + n_pooled * (i + 1) // n_stretches


def _n_clusters(n_tokens: int, pool_factor: int) -> int:
    return max(1, n_tokens // pool_factor)


def _pooled(tokens: FloatArray, pool_factor: int) -> FloatArray:
    """The pooled vectors of one document, shape (pooled_length, dimension)."""
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
    # linkage gets distances, because it can mistake vectors for a distance matrix.
    distances = scipy.spatial.distance.pdist(unit_length(tokens))
    tree = scipy.cluster.hierarchy.linkage(distances, method="ward")
    # Replace heights by ranks: a cut by height takes either all merges of equal height or none.
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
    # A mean with the length of its tokens can have a larger component than any of them, even beyond the limit.
    return np.clip(means[by_first_token], -MAX_MAGNITUDE, MAX_MAGNITUDE).astype(np.float32)

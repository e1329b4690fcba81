"""Token pruning: tokens of a document that others of its tokens can stand in for are not stored.

Each dropped token is stood in for by the nearest one that is kept. The token is dropped whose going makes the sum of
the distances between tokens and their stand-ins grow least, until the wished share is left. A query token of unit
length loses no more of its best match than the distance between that token and its stand-in. Every kept vector is one
that the model made.

No test can prune vectors of unit length without any loss: each of them is the best match of a query token that equals
it. So "Towards Lossless Token Pruning in Late-Interaction Retrieval Models" (arXiv 2504.12778) trains a model for
it. What is done here works for every model and depends on the document alone. ``docs/benchmarks.md`` compares it with
other rules.

The first token is kept: in BERT-like models it is a marker that stands for the whole text.
"""

from __future__ import annotations

import math

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, unit_length
from muvera_core.validation import require_share

# The smallest share: one token in ten. Fewer would find little, and pooling loses less long before.
LEAST_KEPT = 0.1
# Most tokens that are compared with one another. Memory grows with the square of their number: 4 MB for 1,024.
_MAX_STRETCH = 1024


def require_keep_tokens(value: object) -> float:
    """A number from ``LEAST_KEPT`` to 1 (all tokens). Raises InvalidInputError otherwise."""
    share = require_share("keep_tokens", value)
    if share < LEAST_KEPT:
        raise InvalidInputError(f"keep_tokens must be from {LEAST_KEPT} to 1, got {share}: pool_factor loses less")
    return share


def prune_tokens(embeddings: TokenEmbeddings, keep_tokens: float) -> TokenEmbeddings:
    """Drop tokens of each document that others of its tokens can stand in for.

    A document's result does not depend on the other documents. A document of more than 1,024 tokens is pruned in
    consecutive stretches of at most 1,024.

    Args:
        embeddings: token vectors of documents.
        keep_tokens: the share of a document's tokens to keep. 1 keeps all.

    Returns:
        ``kept_length`` vectors for each document, in their order.

    Raises:
        InvalidInputError: the share is not a number from ``LEAST_KEPT`` to 1.
    """
    if require_keep_tokens(keep_tokens) == 1:
        return embeddings
    kept = [tokens[kept_places(tokens, keep_tokens)] for tokens in embeddings]
    return TokenEmbeddings.from_list(kept, embeddings.dimension)


def kept_length(n_tokens: int, keep_tokens: float) -> int:
    """The number of vectors that ``prune_tokens`` returns for a document of ``n_tokens``."""
    return sum(_n_kept(end - start, keep_tokens) for start, end in _stretches(n_tokens))


def kept_places(tokens: FloatArray, keep_tokens: float) -> IntArray:
    """The places of the tokens that are kept, ascending, int64, shape (kept_length,).

    Args:
        tokens: the tokens of one document, shape (tokens, dimension).
        keep_tokens: the share to keep.
    """
    parts = [
        start + _kept(unit_length(tokens[start:end]), _n_kept(end - start, keep_tokens), keeps_first=start == 0)
        for start, end in _stretches(len(tokens))
    ]
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def _stretches(n_tokens: int) -> list[tuple[int, int]]:
    """Start and end of each stretch. The stretches have nearly equal lengths."""
    n = -(-n_tokens // _MAX_STRETCH)
    return [(n_tokens * i // n, n_tokens * (i + 1) // n) for i in range(n)]


def _n_kept(n_tokens: int, keep_tokens: float) -> int:
    return math.ceil(n_tokens * keep_tokens - 1e-9)  # .7 of 10 is 7, though the product is a little more


def _kept(tokens: FloatArray, n_kept: int, *, keeps_first: bool) -> IntArray:
    """The places of ``n_kept`` tokens, after dropping the one that costs least again and again.

    Each token's nearest and second nearest kept token are noted, so that dropping one looks only at those that it was
    one of. The cost of a kept token is what the distances of the tokens that it stands for grow by, if each
    goes over to its second nearest.

    Args:
        tokens: of unit length or zero, shape (tokens, dimension).
        n_kept: number of tokens to keep, at least 1.
        keeps_first: never drop the first one.
    """
    n = len(tokens)
    products = tokens @ tokens.T
    squares = products.diagonal()
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 0))  # column ``i`` leads to token ``i``
    np.fill_diagonal(distances, 0)
    rows = np.arange(n)
    nearest, second = rows.copy(), rows.copy()
    is_kept = np.ones(n, dtype=np.bool_)

    def find_second(of: IntArray) -> None:
        others = distances[of]
        others[np.arange(len(of)), nearest[of]] = np.inf
        second[of] = others.argmin(axis=1)

    if n_kept < n:
        find_second(rows)
    for n_left in range(n, n_kept, -1):
        growth = distances[rows, second] - distances[rows, nearest]
        costs = np.bincount(nearest, growth, minlength=n)
        costs[~is_kept] = np.inf
        if keeps_first:
            costs[0] = np.inf
        dropped = n - 1 - int(costs[::-1].argmin())  # of equals the last
        is_kept[dropped] = False
        distances[:, dropped] = np.inf
        moved = nearest == dropped
        nearest[moved] = second[moved]
        if n_left > 2:
            find_second(np.flatnonzero(moved | (second == dropped)))
    return np.flatnonzero(is_kept)

"""What an index does to a document's tokens before it stores them: it prunes them, then pools what is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from muvera_core.encoders.token_pooling import pool_tokens, pooled_length, require_pool_factor
from muvera_core.encoders.token_pruning import kept_length, kept_places, prune_tokens, require_keep_tokens
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings

_COMPARED_TOGETHER = 1024


@dataclass(frozen=True)
class TokenReduction:
    """How many of a document's tokens are stored.

    Attributes:
        keep_tokens: the share of tokens that pruning keeps; see ``token_pruning``.
        pool_factor: of these, about one in ``pool_factor`` is left by pooling; see ``token_pooling``.

    Raises:
        InvalidInputError: a setting is out of its range.
    """

    keep_tokens: float = 1.0
    pool_factor: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep_tokens", require_keep_tokens(self.keep_tokens))
        object.__setattr__(self, "pool_factor", require_pool_factor(self.pool_factor))

    @property
    def keeps_all(self) -> bool:
        """Whether all tokens are stored as they are."""
        return self.keep_tokens == 1 and self.pool_factor == 1

    def apply(self, embeddings: TokenEmbeddings) -> TokenEmbeddings:
        """The vectors to store. A document's result does not depend on the other documents.

        Raises:
            MissingExtraError: tokens are pooled, and SciPy is not installed.
        """
        return pool_tokens(prune_tokens(embeddings, self.keep_tokens), self.pool_factor)

    def length(self, n_tokens: int) -> int:
        """The number of vectors that are stored for a document of ``n_tokens``."""
        return pooled_length(kept_length(n_tokens, self.keep_tokens), self.pool_factor)

    def places(
        self,
        query_tokens: FloatArray,
        stored: FloatArray,
        matched: IntArray,
        n_tokens: int,
        encode: Callable[[], FloatArray | None],
    ) -> IntArray | None:
        """For each query token the place, in the document as it was encoded, of the token that it matches.

        Of tokens that were pooled, it is the one nearest to the query token. Places are not stored: if tokens were
        pruned or pooled, the document is encoded and pruned again.

        Args:
            query_tokens: shape (query tokens, dimension).
            stored: the document's stored vectors, shape (stored tokens, dimension).
            matched: place of each query token's match among them, int64, shape (query tokens,).
            n_tokens: number of the document's tokens before the reduction.
            encode: gives these tokens, shape (n_tokens, dimension). None if the document cannot be encoded any more.

        Returns:
            Places, int64, shape (query tokens,). None if they cannot be known.
        """
        if self.length(n_tokens) != len(stored):
            return None  # this encoder has not made the tokens from this text or image
        if self.keeps_all:
            return matched
        own = encode()
        if own is None or len(own) != n_tokens:
            return None
        kept = kept_places(own, self.keep_tokens) if self.keep_tokens < 1 else np.arange(len(own))
        return kept[_nearest_members(query_tokens, own[kept], stored, matched)]


def _nearest_members(
    query_tokens: FloatArray, own_tokens: FloatArray, stored_tokens: FloatArray, matched: IntArray
) -> IntArray:
    """For each query token the nearest member of the stored token that it matches.

    A document's own token is taken to be a member of the stored token that is nearest to it. This holds for 99 % of
    tokens (pool factors 2 and 4, Natural Questions) and avoids clustering them again. A token that was not pooled is
    its own only member.

    Args:
        query_tokens: shape (query tokens, dimension).
        own_tokens: the document's tokens before pooling, shape (own tokens, dimension).
        stored_tokens: shape (stored tokens, dimension).
        matched: place of each query token's match among the stored tokens, shape (query tokens,).

    Returns:
        Places among its own tokens, int64, shape (query tokens,).
    """
    owners = [
        (own_tokens[start : start + _COMPARED_TOGETHER] @ stored_tokens.T).argmax(axis=1)
        for start in range(0, len(own_tokens), _COMPARED_TOGETHER)
    ]
    is_member = matched[:, None] == np.concatenate(owners)
    is_member |= ~is_member.any(axis=1, keepdims=True)  # a pooled token without a member: any token will do
    nearest: IntArray = np.where(is_member, query_tokens @ own_tokens.T, -np.inf).argmax(axis=1)
    return nearest

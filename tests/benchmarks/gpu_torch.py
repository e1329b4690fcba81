"""Reranking in PyTorch, to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from muvera_core.storage.token_codec import Rows
from muvera_core.token_embeddings import FloatArray, IntArray

# Queries that are scored together. The gathered tokens and the products of more would not fit.
_QUERIES_TOGETHER = 16
_PASSAGES_TOGETHER = 4096


class TorchRerank:
    """The usual way in PyTorch: gather the candidates' tokens, padded to one length, multiply, maximum, sum."""

    def __init__(self, number: int, n: int, n_tokens: int, dimension: int, rows_of: Callable[[IntArray], Rows]) -> None:
        """Copy the float16 rows of all passages to the GPU.

        Args:
            number: of the GPU.
            n: number of passages.
            n_tokens: tokens of each.
            dimension: width of a token vector.
            rows_of: gives the rows of some passages.
        """
        import torch

        self.torch, self.device = torch, torch.device("cuda", number)
        self.tokens = torch.empty((n, n_tokens, dimension), dtype=torch.float16, device=self.device)
        for start in range(0, n, _PASSAGES_TOGETHER):
            keys = np.arange(start, min(n, start + _PASSAGES_TOGETHER))
            vectors = np.ascontiguousarray(rows_of(keys)["codes"]).reshape(len(keys), n_tokens, dimension)
            self.tokens[start : start + len(keys)] = torch.from_numpy(vectors).to(self.device)
        self.compiled = torch.compile(self.score)

    def score(self, queries: Any, places: Any) -> Any:
        """MaxSim, (queries, candidates)."""
        candidates = self.tokens[places]
        return self.torch.einsum("qid,qntd->qnit", queries, candidates).amax(dim=3).sum(dim=2)

    def rank(
        self, queries: Sequence[FloatArray], keys: Sequence[IntArray], k: int, *, compiled: bool
    ) -> list[tuple[Any, Any]]:
        """The keys and scores of each query's ``k`` best."""
        torch, step = self.torch, _QUERIES_TOGETHER
        score = self.compiled if compiled else self.score
        all_queries = torch.from_numpy(np.stack(queries)).to(self.device, torch.float16)
        places = torch.from_numpy(np.stack(keys)).to(self.device)
        parts = [score(all_queries[i : i + step], places[i : i + step]) for i in range(0, len(queries), step)]
        best, order = torch.cat(parts).topk(k, dim=1)
        best, order = best.float().cpu().numpy(), order.cpu().numpy()
        return [(of_query[chosen], some) for of_query, chosen, some in zip(keys, order, best, strict=True)]

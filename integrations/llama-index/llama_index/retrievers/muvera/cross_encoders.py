"""Lets a node postprocessor of LlamaIndex, such as a reranker, be the cross-encoder of a search."""

from __future__ import annotations

from typing import Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from muvera_core.errors import InvalidInputError
from muvera_core.search import CrossEncoder, scoring_function
from muvera_core.validation import counted


def to_cross_encoder(cross_encoder: CrossEncoder | BaseNodePostprocessor) -> CrossEncoder:
    """A cross-encoder that the core can ask.

    Args:
        cross_encoder: what ``MuveraIndex.search_with_cross_encoder`` takes, which is returned as it is; or a node
            postprocessor that gives each node a score.

    Raises:
        InvalidInputError: it is something else.
    """
    if isinstance(cross_encoder, BaseNodePostprocessor):
        return _by_nodes(cross_encoder)
    scoring_function(cross_encoder)
    return cross_encoder


def require_cross_encoder(name: str, cross_encoder: Any) -> Any:
    """The same object. Raises InvalidInputError if it cannot be a cross-encoder."""
    to_cross_encoder(cross_encoder)
    return cross_encoder


def _by_nodes(postprocessor: BaseNodePostprocessor) -> CrossEncoder:
    def score(pairs: list[tuple[str, str]]) -> list[float | None]:
        question = pairs[0][0]
        nodes = [NodeWithScore(node=TextNode(id_=str(i), text=text), score=0.0) for i, (_, text) in enumerate(pairs)]
        ranked = postprocessor.postprocess_nodes(nodes, query_bundle=QueryBundle(question))
        scores = {node.node_id: node.score for node in ranked}
        if len(scores) < len(pairs):
            raise InvalidInputError(
                f"{type(postprocessor).__name__} returned {counted(len(scores), 'node')} of {len(pairs)}, but as a "
                f"cross_encoder it has to score all of them: set its top_n to {len(pairs)} or more"
            )
        return [scores[str(i)] for i in range(len(pairs))]

    return score

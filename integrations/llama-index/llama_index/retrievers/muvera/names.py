"""Names and values that users give: unknown names are refused, and values are checked, whenever they are set.

A name that is silently ignored gives answers to another question than the one that was asked. So every call refuses
what it does not know, and suggests what may have been meant. Many names that are known elsewhere, in LangChain or in
other vector stores, have another name here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

from llama_index.core.bridge.pydantic import BaseModel, ValidationError
from llama_index.core.schema import BaseNode

from muvera_core import IndexCalls
from muvera_core.errors import InvalidInputError
from muvera_core.validation import require_choice, require_known_names, shown

Check = Callable[[str, Any], Any]

# For each name that is used elsewhere the names that can be meant here. A call knows at most one of them.
_MEANT: dict[str, tuple[str, ...]] = {
    "filter": ("filters",),
    "where": ("filters",),
    "metadata_filters": ("filters",),
    "k": ("similarity_top_k", "top_n"),
    "top_k": ("similarity_top_k", "top_n"),
    "top_n": ("similarity_top_k",),
    "limit": ("similarity_top_k", "top_n"),
    "similarity_top_k": ("top_n",),
    "score_threshold": ("min_score",),
    "similarity_cutoff": ("min_score",),
    "num_candidates": ("n_candidates",),
    "fetch_k": ("mmr_prefetch_k",),
    "lambda_mult": ("mmr_threshold",),
    "relevance_weight": ("mmr_threshold",),
    "ids": ("node_ids",),
    "doc_id": ("ref_doc_id",),
    "path": ("persist_dir",),
    "persist_path": ("persist_dir",),
    "persist_directory": ("persist_dir",),
    "model": ("encoder",),
    "model_name": ("encoder",),
    "embed_model": ("encoder",),
    "embedding": ("encoder",),
    "fde_config": ("fde",),
    "search_mode": ("mode",),
    "query_mode": ("mode",),
    "vector_store_query_mode": ("mode",),
    "search_type": ("mode",),
    "hybrid": ("mode",),
    "bm25_weight": ("lexical_weight",),
    "sparse_weight": ("lexical_weight",),
    "keyword_weight": ("lexical_weight",),
    "fusion_type": ("fusion",),
    "fusion_method": ("fusion",),
    "with_passages": ("passage",),
    "highlight": ("passage",),
    "diversity_method": ("method",),
    "reranker": ("cross_encoder",),
    "max_calls": ("n_calls",),
    "bm25": ("lexical",),
}


def refuse_unknown(
    owner: str, given: Iterable[str], *known: Callable[..., Any] | str, aliases: Mapping[str, str] | None = None
) -> None:
    """Refuse names that are not known.

    Args:
        owner: the name of the call, for the message.
        given: the names that a user gave.
        *known: the names that are known, or calls whose parameters are.
        aliases: what further names mean.

    Raises:
        InvalidInputError: a name is unknown. The message suggests what may have been meant.
    """
    names = [name for one in known for name in ([one] if isinstance(one, str) else _parameters(one))]
    meant = {name: one for name, several in _MEANT.items() for one in several if one in names}
    # In a VectorStoreQuery alpha is the share of the vectors.
    alpha = {"alpha": "give lexical_weight, which is 1 - alpha"} if "lexical_weight" in names else {}
    require_known_names(owner, given, names, {**meant, **alpha, **(aliases or {})})


def _parameters(call: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(call).parameters.values()
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [parameter.name for parameter in parameters if parameter.kind not in variable and parameter.name != "self"]


def require_index(index: object) -> IndexCalls:
    """An index.

    Raises:
        InvalidInputError: it is something else.
    """
    if not isinstance(index, IndexCalls):
        raise InvalidInputError(
            "index must be a MuveraIndex, a ShardedMuveraIndex or a RemoteMuveraIndex, got "
            f"{type(index).__name__}: make one with MuveraIndex.create(folder), or pass the client of a "
            "MuveraVectorStore"
        )
    return index


def require_nodes(nodes: Iterable[BaseNode]) -> list[BaseNode]:
    """Nodes from any iterable, as a list.

    Raises:
        InvalidInputError: there is something else.
    """
    if isinstance(nodes, BaseNode) or not isinstance(nodes, Iterable):
        raise InvalidInputError(f"nodes must be a list of nodes, got {type(nodes).__name__}: for one node give [node]")
    nodes = list(nodes)
    for i, node in enumerate(nodes):
        if not isinstance(node, BaseNode):
            raise InvalidInputError(
                f"nodes[{i}] must be a node, got {type(node).__name__}: write TextNode(id_=…, text=…)"
            )
    return nodes


def one_or_more(ids: str | Iterable[str]) -> list[str]:
    """One id, or several, as a list."""
    return [ids] if isinstance(ids, str) else list(ids)


@contextmanager
def own_errors(owner: str) -> Iterator[None]:
    """Raise InvalidInputError in place of pydantic's ValidationError."""
    try:
        yield
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, problem['loc'])) or owner}: {problem['msg']}, got {shown(problem['input'])}"
            for problem in error.errors()
        )
        raise InvalidInputError("; ".join(problems)) from error


def assign(model: BaseModel, name: str, value: Any, checks: Mapping[str, Check], assign: Check) -> None:
    """Set an attribute of a pydantic model after checking it.

    Args:
        model: the model.
        name: the attribute.
        value: the value.
        checks: by name of an attribute the check of its values.
        assign: pydantic's own ``__setattr__``.

    Raises:
        InvalidInputError: the model has no such attribute, or the value is invalid.
    """
    kind = type(model)
    fields = kind.model_fields
    if not name.startswith("_") and name not in fields and not hasattr(kind, name):
        refuse_unknown(kind.__name__, [name], *fields)
    with own_errors(kind.__name__):
        assign(name, checks[name](name, value) if name in checks else value)


def optional(check: Check) -> Check:
    """A check that also admits None."""
    return lambda name, value: None if value is None else check(name, value)


def choice(kind: Any) -> Check:
    """A check that admits the names of a ``Literal`` only."""
    return lambda name, value: require_choice(name, value, get_args(kind))


def fixed(advice: str) -> Check:
    """A check that refuses every value, for an attribute that follows from others."""

    def refuse(name: str, value: Any) -> Any:
        raise InvalidInputError(f"{name} cannot be set afterwards: {advice}")

    return refuse

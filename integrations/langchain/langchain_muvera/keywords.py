"""Refuses keywords that a class or a call does not know, and suggests the nearest one that it knows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import wraps
from inspect import Parameter, signature
from typing import Any, ParamSpec, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from muvera_core.errors import InvalidInputError
from muvera_core.validation import require_known_names, shown

P = ParamSpec("P")
R = TypeVar("R")

# What other packages call a keyword of ours. The first name that a call knows is suggested.
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "where": ("filter",),
    "filters": ("filter",),
    "metadata_filter": ("filter",),
    "search_filter": ("filter",),
    "top_k": ("k", "top_n"),
    "similarity_top_k": ("k", "top_n"),
    "limit": ("k", "top_n"),
    "k": ("top_n",),
    "top_n": ("k",),
    "score_threshold": ("min_score",),
    "similarity_cutoff": ("min_score",),
    "threshold": ("min_score",),
    "num_candidates": ("n_candidates",),
    "fetch_k": ("n_candidates",),
    "relevance_weight": ("lambda_mult",),
    "node_ids": ("ids",),
    "id": ("ids",),
    "metadata": ("metadatas",),
    "uris": ("images",),
    "image_paths": ("images",),
    "paths": ("images",),
    "persist_directory": ("path",),
    "persist_dir": ("path",),
    "folder_path": ("path",),
    "embeddings": ("embedding",),
    "embedding_function": ("embedding",),
    "embed_model": ("encoder", "embedding"),
    "model": ("encoder",),
    "model_name": ("encoder",),
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
    "vectorstore": ("index",),
    "store": ("index",),
}
_ADVICE: Mapping[str, str] = {
    "allow_dangerous_deserialization": "leave it out, because nothing is unpickled",
    "collection_name": "leave it out, because each collection has its own folder (path)",
    "search_kwargs": "give its entries as keywords, such as k=3",
}


def refuse_unknown(owner: str, given: Iterable[str], known: Iterable[str], advice: Mapping[str, str] = {}) -> None:
    """Check that ``owner`` knows all names.

    Args:
        owner: a class or a call.
        given: the names that it was given.
        known: the names that it knows.
        advice: for a name that it does not know, what to do.

    Raises:
        InvalidInputError: it does not know a name. The message suggests another one.
    """
    known = list(known)
    # Elsewhere alpha is the share of the vectors.
    alpha = {"alpha": "give lexical_weight, which is 1 - alpha"} if "lexical_weight" in known else {}
    require_known_names(owner, given, known, {**_ADVICE, **translations_to(known), **alpha, **advice})


def translations_to(known: Collection[str]) -> dict[str, str]:
    """One of the known names for each name that other packages use in its place."""
    translated = {name: [ours for ours in others if ours in known] for name, others in _ALIASES.items()}
    return {name: ours[0] for name, ours in translated.items() if ours}


def names_of(call: Callable[..., Any]) -> list[str]:
    """The keywords that a method's signature names."""
    unnamed = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL, Parameter.POSITIONAL_ONLY)
    return [
        name
        for name, parameter in signature(call).parameters.items()
        if parameter.kind not in unnamed and name not in ("self", "cls")
    ]


def refuses_unknown(call: Callable[P, R]) -> Callable[P, R]:
    """A method that raises InvalidInputError if it is called with a keyword that its signature does not name.

    ``**kwargs`` in the signature names nothing. LangChain's signatures need it.
    """
    known = names_of(call)

    @wraps(call)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        owner = args[0] if isinstance(args[0], type) else type(args[0])
        refuse_unknown(f"{owner.__name__}.{call.__name__}".removesuffix(".__init__"), kwargs, known)
        return call(*args, **kwargs)

    return checked


class StrictModel(BaseModel):
    """A pydantic model that refuses unknown names and invalid values, also in assignments and copies, by our errors."""

    model_config = ConfigDict(arbitrary_types_allowed=True, validate_assignment=True)

    def __init__(self, **values: Any) -> None:
        refuse_unknown(type(self).__name__, values, _fields_of(type(self)))
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _invalid(type(self), error) from error

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(type(self), name):
            refuse_unknown(type(self).__name__, [name], [*_fields_of(type(self)), *type(self).__private_attributes__])
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            raise _invalid(type(self), error) from error

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other settings, which are checked."""
        copied = super().model_copy(deep=deep)
        for name, value in (update or {}).items():
            setattr(copied, name, value)
        return copied


def _fields_of(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        if field.alias is not None:
            yield field.alias


def _invalid(model: type[BaseModel], error: ValidationError) -> InvalidInputError:
    problems = (
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}, got {shown(problem['input'])}"
        for problem in error.errors(include_url=False)
    )
    return InvalidInputError(f"{model.__name__} cannot take these values: {'; '.join(problems)}")

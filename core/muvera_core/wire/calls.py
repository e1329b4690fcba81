"""The calls that a service answers: the one table from which it, its OpenAPI page and its client are made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_type_hints

from muvera_core.index import IndexCalls
from muvera_core.wire import extra_calls
from muvera_core.wire.codecs import Codec, Picture, codec_of

# "read" asks any process of a service. "write" changes documents, "admin" changes the index: they ask the one process
# that writes, and a service that only reads refuses them.
Kind = Literal["read", "write", "admin"]
# Arguments of methods that a client cannot send: an object to fill in, and a bar on its own standard error.
LOCAL = frozenset({"clock", "show_progress"})


@dataclass(frozen=True)
class Call:
    """A call of an index that a service answers on ``/v1/NAME``.

    Attributes:
        name: its name.
        kind: what it does with the index.
        function: its signature, type hints and docstring say what it takes and returns. The first argument is the
            index.
        is_method: whether it is a method of the index, of the same name.
        repeatable: whether making it twice does and returns the same as making it once.
        slow: whether it may take long.
    """

    name: str
    kind: Kind
    function: Callable[..., Any]
    is_method: bool
    repeatable: bool
    slow: bool

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The parameters that are sent, by name. Their annotations are types."""
        hints = get_type_hints(self.function, localns={"Image": Picture})
        _, *parameters = inspect.signature(self.function).parameters.values()
        return {each.name: each.replace(annotation=hints[each.name]) for each in parameters if each.name not in LOCAL}

    @cached_property
    def takes_clock(self) -> bool:
        """Whether it times its stages."""
        return "clock" in inspect.signature(self.function).parameters

    @cached_property
    def result(self) -> Codec:
        """The codec of what it returns."""
        return codec_of(self.result_type)

    @cached_property
    def result_type(self) -> Any:
        """The type of what it returns."""
        return get_type_hints(self.function, localns={"Image": Picture})["return"]

    def make(self, index: IndexCalls, arguments: Mapping[str, Any]) -> Any:
        """Make the call of an index."""
        if self.is_method:
            return getattr(index, self.name)(**arguments)
        return self.function(index, **arguments)


def _method(name: str, kind: Kind = "read", *, repeatable: bool | None = None, slow: bool | None = None) -> Call:
    is_read = kind == "read"
    return Call(
        name,
        kind,
        getattr(IndexCalls, name),
        is_method=True,
        repeatable=is_read if repeatable is None else repeatable,
        slow=not is_read if slow is None else slow,
    )


def _extra(name: str, function: Callable[..., Any]) -> Call:
    return Call(name, "read", function, is_method=False, repeatable=True, slow=False)


_CALLS = (
    _method("search"),
    _method("search_batch"),
    _method("search_embeddings"),
    _method("search_embeddings_batch"),
    _method("rerank"),
    _method("search_diverse"),
    _method("search_by_vector"),
    _method("plan"),
    _method("explain"),
    _method("similarity_maps"),
    _method("heat_map"),
    _method("get"),
    _method("get_embeddings"),
    _method("find"),
    _method("page"),
    _method("count"),
    _extra("contains", extra_calls.contains),
    _extra("len", extra_calls.length),
    _extra("n_tokens", extra_calls.n_tokens),
    # With ids, which the client draws, a document is added once however often it is sent.
    _method("add", "write", repeatable=True),
    _method("add_images", "write", repeatable=True),
    _method("add_embeddings", "write", repeatable=True),
    _method("update_metadata", "write"),
    _method("delete", "write"),
    _method("clear", "write"),
    _method("refresh"),
    _method("compact", "admin"),
    _method("set_lexical", "admin", repeatable=True),
    _method("notes"),
    _method("write_note", "write", repeatable=True),
    _method("default_candidates"),
    _method("sizes"),
    _method("evaluate", slow=True),
    _method("optimize", "admin"),
    _method("calibrate", "admin"),
    _method("remove_calibration", "admin"),
    _extra("encode_queries", extra_calls.encode_queries),
    _extra("encode_documents", extra_calls.encode_documents),
    _extra("query_spans", extra_calls.query_spans),
    _extra("document_spans", extra_calls.document_spans),
    _extra("encode_images", extra_calls.encode_images),
    _extra("image_patches", extra_calls.image_patches),
    _extra("info", extra_calls.info),
)
CALLS: Mapping[str, Call] = {call.name: call for call in _CALLS}
"""All calls, by name."""

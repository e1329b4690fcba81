"""LlamaIndex nodes as documents of a muvera index, and back.

A document's text is what LlamaIndex would embed: the node's text with the metadata that it doesn't exclude. Its
metadata is the node's own, so that filters use the user's keys, and one reserved key beside them::

    {"author": "Ada", "tags": ["a", "b"],
     "_llama_index": {"node_id": …, "ref_doc_id": …, "lists": ["tags"], "node": "{…}"}}

``node`` is JSON text with everything else: relationships, excluded keys, templates, character positions, the type of
node. ``lists`` names the keys that hold lists, which LlamaIndex's filters tell from single values. A document that
was added through muvera_core has no such key and comes back as a plain ``TextNode``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from llama_index.core.schema import BaseNode, IndexNode, MetadataMode, NodeWithScore, TextNode
from llama_index.core.storage.docstore.utils import doc_to_json, json_to_doc
from pydantic_core import to_jsonable_python

from muvera_core import Document, Hit
from muvera_core.errors import InvalidInputError

RESERVED_KEY = "_llama_index"
NODE_ID_FIELD = f"{RESERVED_KEY}.node_id"
REF_DOC_ID_FIELD = f"{RESERVED_KEY}.ref_doc_id"
LISTS_FIELD = f"{RESERVED_KEY}.lists"
SCORE_KEY = "maxsim_score"


class Record(NamedTuple):
    """What ``MuveraIndex.add`` takes for one document."""

    id: str
    text: str
    metadata: dict[str, Any]


def to_record(node: BaseNode) -> Record:
    """The document that stands for a node. An embedding that the node may have is left out.

    Raises:
        InvalidInputError: the node's metadata uses the reserved key, or holds what can't be written as JSON.
    """
    try:
        # NaN stays itself, for the index to refuse; pydantic would silently make it null.
        metadata = to_jsonable_python(node.metadata, inf_nan_mode="constants")
        data = node.model_dump(mode="json", exclude={"embedding", "metadata"}, exclude_defaults=True)
        if isinstance(node, IndexNode) and isinstance(node.obj, BaseNode):
            # Before llama-index-core 0.14.24 a dump doesn't say what kind of node it is.
            data["obj"] = to_jsonable_python(doc_to_json(node.obj))
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"node {node.node_id!r} can't be stored as JSON: {error}") from error
    if RESERVED_KEY in metadata:
        raise InvalidInputError(
            f"node {node.node_id!r} has metadata under {RESERVED_KEY!r}, which is reserved: rename that key"
        )
    del data["id_"]
    text = node.get_content(metadata_mode=MetadataMode.EMBED)
    if isinstance(node, TextNode):
        data["text"] = None if node.text == text else node.text  # None: the document has it
    reserved = {
        "node_id": node.node_id,
        # An ingestion pipeline, too, takes a node without a source for a document of its own.
        "ref_doc_id": node.ref_doc_id or node.node_id,
        "lists": list(_list_paths(metadata)),
        "node": json.dumps([node.get_type(), data], ensure_ascii=False),
    }
    return Record(node.node_id, text, {**metadata, RESERVED_KEY: reserved})


def to_node(document: Document) -> BaseNode:
    """The node that a document stands for: equal to the one that was stored, but for its embedding."""
    metadata = dict(document.metadata)
    reserved = metadata.pop(RESERVED_KEY, None)
    if reserved is None:
        return TextNode(id_=document.id, text=document.text or "", metadata=metadata)
    node_type, data = json.loads(reserved["node"])
    if data.get("text", "") is None:
        data["text"] = document.text
    return json_to_doc({"__type__": node_type, "__data__": {**data, "id_": document.id, "metadata": metadata}})


def to_scored_node(hit: Hit) -> NodeWithScore:
    """A hit's node, its score in [0, 1], and the raw MaxSim sum where models don't see it."""
    node = to_node(hit)
    node.metadata[SCORE_KEY] = hit.score
    node.excluded_llm_metadata_keys = [*node.excluded_llm_metadata_keys, SCORE_KEY]
    node.excluded_embed_metadata_keys = [*node.excluded_embed_metadata_keys, SCORE_KEY]
    return NodeWithScore(node=node, score=hit.normalized_score)


def is_plain(document: Document) -> bool:
    """Whether a document was added through muvera_core rather than as a node."""
    return RESERVED_KEY not in document.metadata


def _list_paths(metadata: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in metadata.items():
        if isinstance(value, list):
            yield f"{prefix}{key}"
        elif isinstance(value, Mapping):
            yield from _list_paths(value, f"{prefix}{key}.")

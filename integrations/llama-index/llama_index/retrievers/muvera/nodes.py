"""Converts LlamaIndex nodes to documents of the index, and back.

The text of a document is the text that LlamaIndex would embed: the node's text and its metadata without the excluded
keys. The metadata of a document is that of the node, so that filters use the user's keys, and one reserved key::

    {"author": "Ada", "tags": ["a", "b"],
     "_llama_index": {"node_id": …, "ref_doc_id": …, "lists": ["tags"], "node": "{…}"}}

``node`` is JSON text with everything else: relationships, excluded keys, templates, character positions and the type of
node. ``lists`` names the keys that hold lists, because LlamaIndex's filters treat lists and single values differently.
A document that was added through muvera_core has no reserved key. It is returned as a plain ``TextNode``.
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
MAXSIM_SCORE = "maxsim_score"


class Record(NamedTuple):
    """The arguments of ``MuveraIndex.add`` for one document."""

    id: str
    text: str
    metadata: dict[str, Any]


def to_record(node: BaseNode) -> Record:
    """The document for a node. The node's embedding is left out.

    Raises:
        InvalidInputError: the node's metadata uses the reserved key, or JSON cannot hold the node.
    """
    try:
        # Keep NaN, so that the index refuses it. By default pydantic replaces it by null.
        metadata = to_jsonable_python(node.metadata, inf_nan_mode="constants")
        data = node.model_dump(mode="json", exclude={"embedding", "metadata"}, exclude_defaults=True)
        if isinstance(node, IndexNode) and isinstance(node.obj, BaseNode):
            # Before llama-index-core 0.14.24, a dump lacks the type of the node.
            data["obj"] = to_jsonable_python(doc_to_json(node.obj))
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"node {node.node_id!r} cannot be stored as JSON: {error}") from error
    if RESERVED_KEY in metadata:
        raise InvalidInputError(
            f"node {node.node_id!r} has metadata under {RESERVED_KEY!r}, which is reserved: rename that key"
        )
    del data["id_"]
    text = node.get_content(metadata_mode=MetadataMode.EMBED)
    if isinstance(node, TextNode):
        data["text"] = None if node.text == text else node.text  # None stands for the document's text
    reserved = {
        "node_id": node.node_id,
        # A node without a source counts as a document, as in an ingestion pipeline.
        "ref_doc_id": node.ref_doc_id or node.node_id,
        "lists": list(_list_paths(metadata)),
        "node": json.dumps([node.get_type(), data], ensure_ascii=False),
    }
    return Record(node.node_id, text, {**metadata, RESERVED_KEY: reserved})


def to_node(document: Document) -> BaseNode:
    """The node of a document. It equals the node that was stored, except that it has no embedding."""
    metadata = dict(document.metadata)
    reserved = metadata.pop(RESERVED_KEY, None)
    if reserved is None:
        return TextNode(id_=document.id, text=document.text or "", metadata=metadata)
    node_type, data = json.loads(reserved["node"])
    if data.get("text", "") is None:
        data["text"] = document.text
    return json_to_doc({"__type__": node_type, "__data__": {**data, "id_": document.id, "metadata": metadata}})


def to_scored_node(hit: Hit) -> NodeWithScore:
    """A hit's node with its normalized score, and with the score in metadata that is hidden from models."""
    node = to_node(hit)
    node.metadata[MAXSIM_SCORE] = hit.score
    node.excluded_llm_metadata_keys = [*node.excluded_llm_metadata_keys, MAXSIM_SCORE]
    node.excluded_embed_metadata_keys = [*node.excluded_embed_metadata_keys, MAXSIM_SCORE]
    return NodeWithScore(node=node, score=hit.normalized_score)


def is_plain(document: Document) -> bool:
    """Whether a document was added through muvera_core and not as a node."""
    return RESERVED_KEY not in document.metadata


def _list_paths(metadata: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in metadata.items():
        if isinstance(value, list):
            yield f"{prefix}{key}"
        elif isinstance(value, Mapping):
            yield from _list_paths(value, f"{prefix}{key}.")

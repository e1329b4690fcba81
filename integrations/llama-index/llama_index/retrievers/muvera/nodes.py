"""Converts LlamaIndex nodes to documents of the index, and back.

The text of a document is the text that LlamaIndex would embed: the node's text and its metadata without the excluded
keys. The metadata of a document is that of the node, so that filters use the user's keys, and one reserved key::

    {"author": "Ada", "tags": ["a", "b"],
     "_llama_index": {"node_id": …, "ref_doc_id": …, "lists": ["tags"], "node": "{…}"}}

``node`` is JSON text with everything else: relationships, excluded keys, templates, character positions and the type of
node. ``lists`` names the keys that hold lists, because LlamaIndex's filters treat lists and single values differently.
A document that was added through muvera_core has no reserved key. It is returned as a plain ``TextNode``, or as an
``ImageNode`` if it was added as an image.

A node with an image becomes a document of that image if the index's encoder embeds images. The node's text is then
stored to be shown, and neither it nor the metadata is encoded. Image data in the node is not stored.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    IndexNode,
    MetadataMode,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.storage.docstore.utils import doc_to_json, json_to_doc
from pydantic_core import to_jsonable_python

from muvera_core import Document, Hit
from muvera_core.errors import InvalidInputError
from muvera_core.metadata import normalize_metadata
from muvera_core.validation import require_choice

RESERVED_KEY = "_llama_index"
REF_DOC_ID_FIELD = f"{RESERVED_KEY}.ref_doc_id"
LISTS_FIELD = f"{RESERVED_KEY}.lists"
_PASSAGE_KEYS = ("passage", "passage_start", "passage_end")

# What becomes of the part of a text that matched best.
PassageUse = Literal["metadata", "text"]


class Record(NamedTuple):
    """The arguments of ``MuveraIndex.add``, or of ``MuveraIndex.add_images``, for one document."""

    id: str
    text: str
    metadata: dict[str, Any]
    image: str | bytes | None


def image_of(node: BaseNode) -> str | bytes | None:
    """The path, or else the data, of a node's image. None if the node has no image.

    Raises:
        InvalidInputError: only the image's URL is known, or its data are not base64.
    """
    resource = getattr(node, "image_resource", None)
    if isinstance(node, ImageNode):
        path, data, url = node.image_path, node.image, node.image_url
    elif resource is not None:
        path, data, url = resource.path, resource.data, resource.url
    else:
        return None
    if path:
        return str(path)
    if data:
        # As browsers and e-mail write it: with a prefix such as "data:image/png;base64,", and with line breaks.
        encoded = "".join(_as_text(data).rpartition("base64,")[2].split())
        try:
            return base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise InvalidInputError(f"the image of node {node.node_id!r} is not base64: {error}") from error
    if url:
        raise InvalidInputError(
            f"node {node.node_id!r} has only the URL of an image, and nothing is downloaded here: download it, and "
            "give its image_path"
        )
    return None


def _as_text(data: str | bytes) -> str:
    return data if isinstance(data, str) else data.decode("ascii", "replace")


def to_record(node: BaseNode, *, embeds_images: bool = False) -> Record:
    """The document for a node. The node's embedding is left out.

    Args:
        node: the node.
        embeds_images: whether the index's encoder embeds images. Otherwise a node with an image counts as its text.

    Raises:
        InvalidInputError: the node's metadata uses the reserved key, JSON cannot hold the node, or its image has only a
            URL or is not base64.
    """
    image = image_of(node) if embeds_images else None
    return _record(node, image, is_image=image is not None)


def metadata_of_image(node: BaseNode) -> dict[str, Any]:
    """The metadata of the document for a node with an image, which may lack the image's data."""
    return _record(node, None, is_image=True).metadata


def _record(node: BaseNode, image: str | bytes | None, *, is_image: bool) -> Record:
    node = _with_plain_metadata(node)
    if RESERVED_KEY in node.metadata:
        raise InvalidInputError(
            f"node {node.node_id!r} has metadata under {RESERVED_KEY!r}, which is reserved: rename that key"
        )
    try:
        data = node.model_dump(mode="json", exclude={"embedding", "metadata"}, exclude_defaults=True)
        if isinstance(node, IndexNode) and isinstance(node.obj, BaseNode):
            # Before llama-index-core 0.14.24, a dump lacks the type of the node.
            data["obj"] = to_jsonable_python(doc_to_json(node.obj))
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"node {node.node_id!r} cannot be stored as JSON: {error}") from error
    del data["id_"]
    if is_image:
        data.pop("image", None)  # its data
    text = node.get_content(metadata_mode=MetadataMode.NONE if is_image else MetadataMode.EMBED)
    if isinstance(node, TextNode):
        data["text"] = None if node.text == text else node.text  # None stands for the document's text
    reserved = {
        "node_id": node.node_id,
        # A node without a source counts as a document, as in an ingestion pipeline.
        "ref_doc_id": node.ref_doc_id or node.node_id,
        "lists": list(_list_paths(node.metadata)),
        "node": json.dumps([node.get_type(), data], ensure_ascii=False),
    }
    return Record(node.node_id, text, {**node.metadata, RESERVED_KEY: reserved}, image)


def to_node(document: Document) -> BaseNode:
    """The node of a document.

    It equals the node that was stored, except that it has no embedding and no image data, and that its metadata is as
    JSON holds it: see ``muvera_core.metadata``.
    """
    metadata = dict(document.metadata)
    reserved = metadata.pop(RESERVED_KEY, None)
    if reserved is None:
        text = document.text or ""
        if document.image_size is None:
            return TextNode(id_=document.id, text=text, metadata=metadata)
        return ImageNode(id_=document.id, text=text, image_path=document.image, metadata=metadata)
    node_type, data = json.loads(reserved["node"])
    if data.get("text", "") is None:
        data["text"] = document.text or ""
    return json_to_doc({"__type__": node_type, "__data__": {**data, "id_": document.id, "metadata": metadata}})


def require_passage(name: str, passage: Any) -> PassageUse | None:
    """A use of passages, or None. Raises InvalidInputError for anything else."""
    return None if passage is None else require_choice(name, passage, get_args(PassageUse))


def to_found_node(hit: Hit, passage: PassageUse | None = None) -> BaseNode:
    """A hit's node, with its passage if that is wanted.

    Without a passage, nothing about the query is written into the node: LlamaIndex recognizes a node by a hash over
    text and metadata.

    Args:
        hit: the hit.
        passage: "metadata" puts the part of the node's text that matched best into a copy's metadata, in place of what
            is stored under these keys, and keeps it out of what is embedded or given to a language model. "text" also
            makes it the copy's text. The node stays as it is if the passage is not known, or lies in its metadata.
    """
    node = to_node(hit)
    if passage is None or hit.passage is None:
        return node
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    # The text that was matched has metadata before or behind the node's text, which LlamaIndex strips.
    place = (hit.text or "").rfind(text.strip()) - (len(text) - len(text.lstrip()))
    start, end = max(0, hit.passage.start - place), min(len(text), hit.passage.end - place)
    if text.strip() not in (hit.text or "") or start >= end:
        return node
    found = dict(zip(_PASSAGE_KEYS, (text[start:end], start, end), strict=True))
    changes: dict[str, Any] = {"metadata": {**node.metadata, **found}}
    for name in ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys"):
        changes[name] = list(dict.fromkeys([*getattr(node, name), *_PASSAGE_KEYS]))
    node = node.model_copy(update=changes)
    if passage == "text":
        node.set_content(found["passage"])
    return node


def to_scored_node(hit: Hit, passage: PassageUse | None = None) -> NodeWithScore:
    """A hit's node with its relevance. See ``to_found_node``."""
    return NodeWithScore(node=to_found_node(hit, passage), score=hit.relevance)


def to_judged_node(hit: Hit) -> NodeWithScore:
    """A hit's node with the cross-encoder's score; None if it was not judged."""
    return NodeWithScore(node=to_node(hit), score=hit.judged_score)


def is_plain(document: Document) -> bool:
    """Whether a document was added through muvera_core and not as a node."""
    return RESERVED_KEY not in document.metadata


def _with_plain_metadata(node: BaseNode) -> BaseNode:
    """A copy whose metadata, and that of other nodes that it holds, is as JSON holds it.

    A splitter copies a document's metadata to its nodes and to their relationship with the document.
    """
    relationships = {
        kind: [_related(node, each) for each in related] if isinstance(related, list) else _related(node, related)
        for kind, related in node.relationships.items()
    }
    metadata = normalize_metadata(node.metadata, f"the metadata of node {node.node_id!r}")
    changes: dict[str, Any] = {"metadata": metadata, "relationships": relationships}
    if isinstance(node, IndexNode) and isinstance(node.obj, BaseNode):
        changes["obj"] = _with_plain_metadata(node.obj)
    return node.model_copy(update=changes)


def _related(node: BaseNode, related: RelatedNodeInfo) -> RelatedNodeInfo:
    name = f"the metadata of a node that node {node.node_id!r} is related to"
    return related.model_copy(update={"metadata": normalize_metadata(related.metadata, name)})


def _list_paths(metadata: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in metadata.items():
        if isinstance(value, list):
            yield f"{prefix}{key}"
        elif isinstance(value, Mapping):
            yield from _list_paths(value, f"{prefix}{key}.")

"""Nodes come back from disk as they were stored."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.retrievers.muvera import MuveraVectorStore
from llama_index.retrievers.muvera.nodes import RESERVED_KEY, to_record

from muvera_core import MuveraIndex, TokenEncoder
from muvera_core.errors import InvalidInputError


class TestSpecialNode(TextNode):
    """A user's own kind of node."""

    __test__ = False


FULL = TextNode(
    id_="full",
    text="Owls hunt at night.",
    metadata={"author": "Ada", "tags": ["a", "b"], "nested": {"page": 3}, "none": None},
    excluded_embed_metadata_keys=["author"],
    excluded_llm_metadata_keys=["tags"],
    relationships={
        NodeRelationship.SOURCE: RelatedNodeInfo(node_id="doc", metadata={"origin": "x"}, hash="h"),
        NodeRelationship.NEXT: RelatedNodeInfo(node_id="next"),
        NodeRelationship.CHILD: [RelatedNodeInfo(node_id="child")],
    },
    metadata_template="{key} is {value}",
    metadata_separator=" | ",
    text_template="{content} ({metadata_str})",
    start_char_idx=5,
    end_char_idx=24,
    mimetype="text/markdown",
)
NODES: dict[str, BaseNode] = {
    "plain": TextNode(id_="plain", text="Owls hunt."),
    "full": FULL,
    "document": Document(id_="document", text="Owls hunt.", metadata={"a": 1}),
    "index node": IndexNode(id_="index node", text="About owls.", index_id="owls"),
    "index node of a node": IndexNode(
        id_="index node of a node", text="About owls.", index_id="owls", obj=TextNode(id_="inner", text="Owls.")
    ),
    "multimodal": Node(id_="multimodal", text_resource=MediaResource(text="Owls hunt.")),
    "image": ImageNode(id_="image", text="An owl.", image_url="file:owl.png"),
    "only metadata": TextNode(id_="only metadata", text="", metadata={"title": "Owls"}),
}


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_a_node_survives_storing_and_reloading(tmp_path: Path, words: TokenEncoder, node: BaseNode) -> None:
    with MuveraIndex.create(tmp_path / "index", words) as index:
        MuveraVectorStore(index).add([node.model_copy(update={"embedding": [1.0]})])
    with MuveraIndex.open(tmp_path / "index", words) as index:
        (reloaded,) = MuveraVectorStore(index).get_nodes([node.node_id])
    assert type(reloaded) is type(node)
    assert reloaded == node
    assert (reloaded.hash, reloaded.ref_doc_id) == (node.hash, node.ref_doc_id)
    for mode in MetadataMode:
        assert reloaded.get_content(mode) == node.get_content(mode)


def test_what_is_matched_is_what_llama_index_would_embed() -> None:
    assert to_record(FULL).text == FULL.get_content(MetadataMode.EMBED)
    assert "Ada" not in to_record(FULL).text


def test_metadata_stay_under_their_own_keys(store: MuveraVectorStore) -> None:
    store.add([FULL])
    metadata = dict(store.client.get("full")[0].metadata)
    assert metadata.pop(RESERVED_KEY)["ref_doc_id"] == "doc"
    assert metadata == FULL.metadata


def test_an_index_filled_through_the_core_gives_text_nodes(store: MuveraVectorStore) -> None:
    store.client.add(["Owls hunt."], ids=["owl"], metadatas=[{"page": 1}])
    assert store.get_nodes(["owl"]) == [TextNode(id_="owl", text="Owls hunt.", metadata={"page": 1})]


def test_a_users_own_kind_of_node_comes_back_as_text_node(store: MuveraVectorStore) -> None:
    store.add([TestSpecialNode(id_="x", text="Owls hunt.")])
    assert store.get_nodes(["x"]) == [TextNode(id_="x", text="Owls hunt.")]


class Kind(Enum):
    BIRD = "bird"


EVERYDAY: dict[str, tuple[Any, Any]] = {
    "date": (date(2024, 5, 1), "2024-05-01"),
    "moment": (datetime(2024, 5, 1, 12, tzinfo=UTC), "2024-05-01T12:00:00+00:00"),
    "path": (PurePosixPath("notes/owls.txt"), "notes/owls.txt"),
    "uuid": (UUID(int=7), str(UUID(int=7))),
    "member": (Kind.BIRD, "bird"),
    "tuple": ((1, "a"), [1, "a"]),
    "set": ({"b", "a"}, ["a", "b"]),
    "numpy": (np.float32(0.5), 0.5),
    "decimal": (Decimal("2.50"), 2.5),
    "bytes": (b"owls", "owls"),
    "not a number": (float("nan"), None),
    "nested": ({"pages": (1, 2), "on": date(2024, 5, 1)}, {"pages": [1, 2], "on": "2024-05-01"}),
}


@pytest.mark.parametrize("case", list(EVERYDAY))
def test_everyday_metadata_come_back_as_json_has_them(store: MuveraVectorStore, case: str) -> None:
    given, stored = EVERYDAY[case]
    document = Document(id_="doc", text="owls hunt", metadata={"x": given})
    nodes = SentenceSplitter().get_nodes_from_documents([document])  # which copies metadata into a relationship
    index_node = IndexNode(text="about owls", index_id="owls", obj=TextNode(text="owls", metadata={"x": given}))
    store.add([document, *nodes, index_node])
    assert [node.metadata for node in store.get_nodes()] == [{"x": stored}, {"x": stored}, {}]
    again = store.get_nodes()
    assert again[1].source_node is not None
    assert again[1].source_node.metadata == {"x": stored}
    assert store.add(again) == [node.node_id for node in again]  # what comes back can be stored as it is
    assert store.get_nodes() == again
    assert document.metadata == {"x": given}  # the caller's node stays as it is


@pytest.mark.parametrize("value", [float("inf"), object()], ids=["infinity", "object"])
def test_metadata_that_json_cannot_hold_are_refused(store: MuveraVectorStore, value: object) -> None:
    related = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="doc", metadata={"x": value})}
    for node in (
        TextNode(id_="a", text="owls", metadata={"x": value}),
        TextNode(id_="a", text="owls", relationships=related),
        IndexNode(id_="a", text="owls", index_id="owls", obj=TextNode(id_="a", metadata={"x": value})),
    ):
        with pytest.raises(InvalidInputError, match=r"node 'a'.*\['x'\]"):
            store.add([TextNode(text="fine"), node])
    assert store.get_nodes() == []


def test_the_reserved_key_is_refused(store: MuveraVectorStore) -> None:
    with pytest.raises(InvalidInputError, match="reserved: rename"):
        store.add([TextNode(text="Owls hunt.", metadata={RESERVED_KEY: 1})])

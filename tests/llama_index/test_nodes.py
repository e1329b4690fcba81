"""Nodes come back from disk as they were stored."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
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


def test_metadata_become_json(store: MuveraVectorStore) -> None:
    store.add([TextNode(id_="x", text="owls", metadata={"day": date(2024, 5, 1), "pair": (1, 2)})])
    assert store.get_nodes(["x"])[0].metadata == {"day": "2024-05-01", "pair": [1, 2]}


@pytest.mark.parametrize("value", [float("nan"), object()], ids=["nan", "object"])
def test_metadata_that_json_cannot_hold_are_refused(store: MuveraVectorStore, value: object) -> None:
    with pytest.raises(InvalidInputError, match="stored as JSON"):
        store.add([TextNode(text="owls", metadata={"x": value})])


def test_the_reserved_key_is_refused(store: MuveraVectorStore) -> None:
    with pytest.raises(InvalidInputError, match="reserved: rename"):
        store.add([TextNode(text="Owls hunt.", metadata={RESERVED_KEY: 1})])

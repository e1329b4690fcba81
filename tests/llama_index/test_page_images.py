"""Page images in LlamaIndex's vector store and retriever."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.schema import (
    BaseNode,
    ImageDocument,
    ImageNode,
    MediaResource,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.retrievers.muvera import MuveraRetriever, MuveraVectorStore, NoEmbedding
from patch_encoder import COLORS, PATCH, PatchEncoder
from PIL import Image

from muvera_core import MuveraIndex
from muvera_core.errors import InvalidInputError, SkippedImageWarning

COLORED = ("red", "green", "blue")


@pytest.fixture
def pages(tmp_path: Path) -> dict[str, Path]:
    """Files of white pages with one coloured patch, by its colour."""
    files = {color: tmp_path / f"{color}.png" for color in COLORED}
    for n, (color, path) in enumerate(files.items()):
        image = Image.new("RGB", (4 * PATCH, 4 * PATCH), "white")
        image.paste(COLORS[color], (n * PATCH, 0, (n + 1) * PATCH, PATCH))
        image.save(path)
    return files


@pytest.fixture
def encoder() -> PatchEncoder:
    return PatchEncoder()


@pytest.fixture
def store(encoder: PatchEncoder) -> Iterator[MuveraVectorStore]:
    with MuveraIndex.create(None, encoder) as index:
        yield MuveraVectorStore(index)


def found(store: MuveraVectorStore, query: str) -> BaseNode:
    return MuveraRetriever(store.client, similarity_top_k=1).retrieve(query)[0].node


def image_node(color: str, pages: dict[str, Path], **fields: object) -> ImageNode:
    return ImageNode(id_=color, image_path=str(pages[color]), **fields)


def test_image_nodes_are_found_and_come_back_as_they_were(store: MuveraVectorStore, pages: dict[str, Path]) -> None:
    source = RelatedNodeInfo(node_id="report", metadata={"year": 2024})
    nodes = [
        image_node(color, pages, text=text, metadata={"page": n}, relationships={NodeRelationship.SOURCE: source})
        for n, (color, text) in enumerate(zip(COLORED, ["a red page", "", ""], strict=True))
    ]
    assert store.add(nodes) == list(COLORED)
    for node in nodes:
        assert found(store, node.node_id) == node
        assert isinstance(found(store, node.node_id), ImageNode)
    result = store.query(VectorStoreQuery(query_str="red", similarity_top_k=1))
    assert result.nodes == nodes[:1]
    assert store.get_nodes(filters={"page": 1}) == nodes[1:2]
    store.delete("report")
    assert store.count() == 0


@pytest.mark.parametrize("kind", ["ImageNode", "ImageDocument", "Node", "Document"])
def test_every_node_with_an_image_is_matched_by_it(kind: str, store: MuveraVectorStore, pages: dict[str, Path]) -> None:
    def make(color: str) -> BaseNode:
        path = pages[color]
        if kind == "ImageNode":
            return ImageNode(id_=color, image_path=str(path))
        if kind == "ImageDocument":
            return ImageDocument(id_=color, image_path=str(path))
        resource = MediaResource(path=path)
        return (Node if kind == "Node" else Document)(id_=color, image_resource=resource)

    nodes = [make(color) for color in COLORED]
    store.add(nodes)
    for node in nodes:
        again = found(store, node.node_id)
        assert type(again) is type(node)
        assert again == node


@pytest.mark.parametrize("form", ["bare", "lines", "data URI"])
def test_image_data_counts_and_is_not_stored(store: MuveraVectorStore, pages: dict[str, Path], form: str) -> None:
    content = pages["red"].read_bytes()
    data = base64.encodebytes(content).decode() if form == "lines" else base64.b64encode(content).decode()
    if form == "data URI":
        data = f"data:image/png;base64,{data}"
    # LlamaIndex itself takes other forms of base64 for an ImageDocument's pixels.
    bare = base64.b64encode(content).decode()
    store.add([ImageNode(id_="red", image=data, text="text"), ImageDocument(id_="too", image=bare)])
    for id in ("red", "too"):
        (document,) = store.client.get(id)
        assert document.image_size == (4 * PATCH, 4 * PATCH)
        assert data not in str(document.metadata)
    assert found(store, "red") == ImageNode(id_="red", text="text")


def test_a_stored_page_is_not_encoded_again(
    store: MuveraVectorStore, encoder: PatchEncoder, pages: dict[str, Path]
) -> None:
    store.add([image_node("red", pages)])
    store.add([image_node("red", pages, text="now with text", metadata={"page": 1})])
    assert encoder.n_images == 1
    assert found(store, "red").metadata == {"page": 1}


def test_new_metadata_keep_the_image(store: MuveraVectorStore, encoder: PatchEncoder, pages: dict[str, Path]) -> None:
    data = base64.b64encode(pages["blue"].read_bytes()).decode()
    store.add([image_node("red", pages, metadata={"page": 1}), ImageNode(id_="data", image=data)])
    store.add_images([pages["green"]], node_ids=["plain"])
    encoder.n_images = 0
    assert store.update_metadata(["red", "data", "plain"], {"shelf": [3]}) == 3
    assert store.update_metadata(["red"], {"shelf": [3]}) == 0
    assert found(store, "red").metadata == {"page": 1, "shelf": [3]}
    assert {node.node_id for node in store.get_nodes(filters={"shelf": 3})} == {"red", "data", "plain"}
    assert found(store, "blue").node_id == "data"
    assert encoder.n_images == 0


def test_pages_and_texts_are_added_together(store: MuveraVectorStore, pages: dict[str, Path]) -> None:
    nodes = [TextNode(id_="text", text="yellow"), image_node("red", pages), TextNode(id_="other", text="black")]
    assert store.add(nodes) == ["text", "red", "other"]
    assert [found(store, query).node_id for query in ("yellow", "red", "black")] == ["text", "red", "other"]


def test_images_of_the_own_call_come_back_as_image_nodes(store: MuveraVectorStore, pages: dict[str, Path]) -> None:
    assert store.add_images([pages["red"]], node_ids=["a"], texts=["text"], metadatas=[{"page": 1}]) == ["a"]
    assert found(store, "red") == ImageNode(id_="a", text="text", image_path=str(pages["red"]), metadata={"page": 1})
    store.delete("a")
    assert store.count() == 0


async def test_the_asynchronous_calls_do_the_same(store: MuveraVectorStore, pages: dict[str, Path]) -> None:
    await store.async_add([image_node("red", pages)])
    assert await store.aadd_images([pages["green"]], ["g"], texts=["text"]) == ["g"]
    result = await store.aquery(VectorStoreQuery(query_str="green", similarity_top_k=1))
    assert result.ids == ["g"]


def test_a_vector_store_index_over_pages(store: MuveraVectorStore, pages: dict[str, Path]) -> None:
    index = VectorStoreIndex(  # it drops nodes without text and metadata
        [image_node(color, pages, text="a page") for color in COLORED],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=NoEmbedding(),
    )
    (hit,) = index.as_retriever(similarity_top_k=1).retrieve("blue")
    assert isinstance(hit.node, ImageNode)
    assert hit.node.image_path == str(pages["blue"])


def test_a_retriever_from_nodes(pages: dict[str, Path]) -> None:
    nodes = [image_node(color, pages) for color in COLORED]
    retriever = MuveraRetriever.from_nodes(nodes, encoder=PatchEncoder(), pool_factor=2, similarity_top_k=1)
    assert retriever.retrieve("green")[0].node == nodes[1]


def test_what_cannot_be_read_is_skipped(store: MuveraVectorStore) -> None:
    with pytest.warns(SkippedImageWarning, match=r"'gone' .*gone.png: there is no such file"):
        assert store.add([ImageNode(id_="gone", image_path="gone.png"), TextNode(id_="t", text="red")]) == ["gone", "t"]
    assert store.count() == 1


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (ImageNode(id_="a", image_url="https://example.org/a.png"), "'a' has only the URL of an image"),
        (ImageNode(id_="a", image="no base64!"), "the image of node 'a' is not base64"),
    ],
)
def test_an_image_that_cannot_be_had_is_refused(node: ImageNode, message: str, store: MuveraVectorStore) -> None:
    with pytest.raises(InvalidInputError, match=message):
        store.add([TextNode(text="red"), node])
    assert store.count() == 0


def test_an_encoder_of_texts_alone_matches_the_text(pages: dict[str, Path]) -> None:
    with MuveraIndex.create(None) as index:
        store = MuveraVectorStore(index)
        node = image_node("red", pages, text="Owls hunt at night.")
        store.add([node])
        assert found(store, "owls") == node
        assert index.get("red")[0].image_size is None
        with pytest.raises(InvalidInputError, match="embeds no images"):
            store.add_images([pages["red"]])

"""Page images through both frameworks' stores: the same pages, scores and places."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("PIL", reason="needs muvera-core[images]")

from llama_index.core.schema import ImageNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.retrievers.muvera import MuveraVectorStore as LlamaIndexStore
from patch_encoder import COLORS, PATCH, PatchEncoder
from PIL import Image

from langchain_muvera import MuveraVectorStore as LangChainStore
from muvera_core import MuveraIndex


def test_both_stores_find_the_same_pages(tmp_path: Path) -> None:
    colors = ("red", "green", "blue")
    pages = [tmp_path / f"{color}.png" for color in colors]
    for n, (color, path) in enumerate(zip(colors, pages, strict=True)):
        image = Image.new("RGB", (4 * PATCH, 4 * PATCH), "white")
        image.paste(COLORS[color], (n * PATCH, 0, (n + 1) * PATCH, PATCH))
        image.save(path)
    with MuveraIndex.create(None, PatchEncoder()) as index, MuveraIndex.create(None, PatchEncoder()) as other:
        langchain, llama_index = LangChainStore(index), LlamaIndexStore(other)
        langchain.add_images(pages, [{"n": n} for n in range(3)], ids=list(colors), texts=["a page", None, None])
        llama_index.add_images(pages, colors, ["a page", None, None], [{"n": n} for n in range(3)])
        for query in ("red", "blue green"):
            found = langchain.similarity_search_with_score(query, k=3)
            nodes = llama_index.query(VectorStoreQuery(query_str=query, similarity_top_k=3))
            assert [document.id for document, _ in found] == nodes.ids
            assert [score for _, score in found] == nodes.similarities
            for (document, _), node in zip(found, nodes.nodes or [], strict=True):
                assert isinstance(node, ImageNode)
                assert document.metadata == {"image": node.image_path, **node.metadata}
                assert document.page_content == node.text

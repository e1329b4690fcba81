"""Page images in LangChain's vector store and retriever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("PIL", reason="needs muvera-core[images]")

from langchain_core.documents import Document
from patch_encoder import COLORS, PATCH, PatchEncoder
from PIL import Image

from langchain_muvera import MuveraRetriever, MuveraVectorStore
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
def store(pages: dict[str, Path]) -> Iterator[MuveraVectorStore]:
    with MuveraVectorStore(MuveraIndex.create(None, PatchEncoder())) as store:
        metadatas = [{"page": n} for n in range(len(pages))]
        ids = store.add_images(pages.values(), metadatas, ids=list(pages), texts=["a red page", None, None])
        assert ids == list(pages)
        yield store


def test_a_question_finds_a_page_and_its_document_says_where_it_is(
    store: MuveraVectorStore, pages: dict[str, Path]
) -> None:
    expected = Document("a red page", id="red", metadata={"image": str(pages["red"]), "page": 0})
    assert store.similarity_search("red", k=1) == [expected]
    assert store.get_by_ids(["red"]) == [expected]
    assert MuveraRetriever(index=store.index, k=1).invoke("red") == [expected]
    assert store.as_retriever(search_kwargs={"k": 1}).invoke("red") == [expected]
    assert store.max_marginal_relevance_search("red", k=1) == [expected]
    assert store.rerank("red", ["green", "red"], 1) == [expected]


def test_a_page_without_text_is_empty(store: MuveraVectorStore) -> None:
    assert store.similarity_search("blue", k=1, filter={"page": 2})[0].page_content == ""


def test_the_users_own_field_stays(store: MuveraVectorStore, pages: dict[str, Path]) -> None:
    store.add_images([pages["red"]], [{"image": "mine"}], ids=["red"])
    assert store.get_by_ids(["red"])[0].metadata == {"image": "mine"}


def test_an_image_without_a_file_has_no_such_field(store: MuveraVectorStore, pages: dict[str, Path]) -> None:
    store.add_images([pages["red"].read_bytes()], ids=["bytes"])
    assert store.get_by_ids(["bytes"])[0].metadata == {}


def test_none_among_the_ids_draws_one(store: MuveraVectorStore, pages: dict[str, Path]) -> None:
    first, second = store.add_images([pages["red"], pages["blue"]], ids=[None, "b"])
    assert (len(first), second, len(store.get_by_ids([first, second]))) == (32, "b", 2)


async def test_the_asynchronous_call_does_the_same(store: MuveraVectorStore, pages: dict[str, Path]) -> None:
    assert await store.aadd_images([pages["green"]], ids=["g"], texts=["text"]) == ["g"]
    (found,) = await store.asimilarity_search("green", k=1, ids=["g"])
    assert (found.page_content, found.metadata) == ("text", {"image": str(pages["green"])})


def test_pages_and_texts_share_a_store(store: MuveraVectorStore) -> None:
    store.add_texts(["yellow"], ids=["text"])
    assert [found.id for found in store.similarity_search("yellow", k=1)] == ["text"]


def test_what_cannot_be_read_is_skipped(store: MuveraVectorStore) -> None:
    with pytest.warns(SkippedImageWarning, match="nowhere.png: there is no such file"):
        assert store.add_images(["nowhere.png"], ids=["a"]) == ["a"]
    assert store.get_by_ids(["a"]) == []


def test_a_name_from_elsewhere_is_refused_with_ours(store: MuveraVectorStore) -> None:
    with pytest.raises(InvalidInputError, match="does not know 'uris': did you mean 'images'"):
        store.add_images(uris=["a.png"])  # type: ignore[call-arg]


def test_an_encoder_of_texts_alone_refuses_images() -> None:
    with (
        MuveraVectorStore(MuveraIndex.create(None)) as store,
        pytest.raises(InvalidInputError, match="embeds no images"),
    ):
        store.add_images(["a.png"])

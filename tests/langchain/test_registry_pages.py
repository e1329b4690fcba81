"""What docs/registries/ says to LangChain's catalogue is true: each feature is tried, and each code block runs."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

import langchain_muvera
from langchain_muvera import MuveraEmbeddings, MuveraVectorStore
from muvera_core.encoders import BundledEncoder

FOLDER = Path(__file__).parents[2] / "docs" / "registries" / "langchain"
PAGES = ("provider", "vectorstore", "retriever")
TEXTS = {page: (FOLDER / f"{page}.mdx").read_text(encoding="utf-8") for page in PAGES}
FRONT: dict[str, dict[str, Any]] = {page: yaml.safe_load(text.split("---\n")[1]) for page, text in TEXTS.items()}
LISTING: dict[str, list[dict[str, Any]]] = yaml.safe_load((FOLDER / "listing.yaml").read_text(encoding="utf-8"))[
    "python"
]
# What the catalogue knows, by component.
FLAGS = {
    "vectorstores": {
        "delete_by_id",
        "filtering",
        "search_by_vector",
        "search_with_score",
        "async_api",
        "passes_standard_tests",
        "multi_tenancy",
        "ids_in_add_documents",
    },
    "retrievers": {"self_host", "cloud_offering"},
    "embeddings": set(),
    "document_compressors": set(),
}
BASES = {
    "vectorstores": VectorStore,
    "retrievers": BaseRetriever,
    "embeddings": Embeddings,
    "document_compressors": BaseDocumentCompressor,
}
QUESTION = "Which bird is active after dark?"


@pytest.mark.parametrize("page", PAGES)
def test_every_python_block_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    blocks = re.findall(r"```python[^\n]*\n(.*?)```", TEXTS[page], flags=re.DOTALL)
    assert blocks
    for code in blocks:
        compiled = compile(code, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(compiled, namespace)
        if inspect.iscoroutine(result):
            asyncio.run(result)


@pytest.mark.parametrize("page", PAGES)
def test_other_blocks_are_installations_or_output(page: str) -> None:
    languages = re.findall(r"^```(\w+)", TEXTS[page], flags=re.MULTILINE)
    assert set(languages) <= {"python", "bash", "text"}
    for command in re.findall(r"```bash[^\n]*\n(.*?)```", TEXTS[page], flags=re.DOTALL):
        assert re.fullmatch(r"(pip install|uv add) (-U )?langchain-muvera\n", command)


def test_the_output_that_a_page_shows_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    test_every_python_block_of_a_page_runs("vectorstore", tmp_path, monkeypatch)
    shown = re.findall(r"```text\n(.*?)```", TEXTS["vectorstore"], flags=re.DOTALL)
    assert shown
    printed = capsys.readouterr().out
    assert [each for each in shown if each not in printed] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_the_fields_that_the_catalogue_reads(page: str) -> None:
    assert FRONT[page]["title"]
    assert FRONT[page]["description"].endswith("using LangChain Python.")


@pytest.mark.parametrize(("page", "component"), [("vectorstore", "vectorstores"), ("retriever", "retrievers")])
def test_page_and_listing_claim_the_same(page: str, component: str) -> None:
    [listed] = LISTING[component]
    claimed = FRONT[page]["integration"]
    for field in {"name", "pypi"} | FLAGS[component]:
        assert claimed[field] == listed[field]
    assert set(claimed) - {"package_md"} == {"name", "pypi"} | FLAGS[component]


@pytest.mark.parametrize("component", sorted(FLAGS))
def test_listed_classes_are_what_they_are_listed_as(component: str) -> None:
    for entry in LISTING[component]:
        assert issubclass(getattr(langchain_muvera, entry["name"]), BASES[component])
        assert entry["pypi"] == "langchain-muvera"
        assert entry["docs_url"].startswith("https://")
        assert set(entry) == {"name", "pypi", "docs_url"} | FLAGS[component]


def test_every_listed_component_is_known() -> None:
    assert set(LISTING) == set(FLAGS)


# One trial of each feature


def try_delete_by_id(store: MuveraVectorStore) -> None:
    store.delete(ids=["owl"])
    assert store.get_by_ids(["owl"]) == []
    assert [document.id for document in store.get_by_ids(["ant"])] == ["ant"]


def try_filtering(store: MuveraVectorStore) -> None:
    assert [document.id for document in store.similarity_search(QUESTION, filter={"legs": 6})] == ["ant"]


def try_search_by_vector(store: MuveraVectorStore) -> None:
    vector = MuveraEmbeddings(encoder=store.index.encoder).embed_query(QUESTION)
    assert store.similarity_search_by_vector(vector, k=1)[0].id == "owl"


def try_search_with_score(store: MuveraVectorStore) -> None:
    scores = [score for _, score in store.similarity_search_with_score(QUESTION)]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] < scores[0] <= 1


def try_async_api(store: MuveraVectorStore) -> None:
    async def use() -> list[Document]:
        await store.aadd_documents([Document(page_content="Bats fly in the dark.")], ids=["bat"])
        await store.adelete(ids=["owl"])
        return await store.asimilarity_search(QUESTION, k=1)

    assert [document.id for document in asyncio.run(use())] == ["bat"]


def try_passes_standard_tests(store: MuveraVectorStore) -> None:
    """The official suite runs in test_vectorstore.py: here, none of its tests is left out there."""
    source = (Path(__file__).parent / "test_vectorstore.py").read_text(encoding="utf-8")
    [suite] = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and VectorStoreIntegrationTests.__name__ in map(ast.unparse, node.bases)
    ]
    assert suite.name.startswith("Test")
    assert [node.name for node in suite.body if isinstance(node, ast.FunctionDef)] == ["vectorstore"]
    assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Assign | ast.AnnAssign) for node in suite.body)


def try_ids_in_add_documents(store: MuveraVectorStore) -> None:
    assert store.add_documents([Document(page_content="Bats fly in the dark.")], ids=["bat"]) == ["bat"]
    assert store.get_by_ids(["bat"])[0].page_content == "Bats fly in the dark."


TRIALS: dict[str, Callable[[MuveraVectorStore], None]] = {
    "delete_by_id": try_delete_by_id,
    "filtering": try_filtering,
    "search_by_vector": try_search_by_vector,
    "search_with_score": try_search_with_score,
    "async_api": try_async_api,
    "passes_standard_tests": try_passes_standard_tests,
    "ids_in_add_documents": try_ids_in_add_documents,
}


@pytest.mark.parametrize("flag", sorted(FLAGS["vectorstores"]))
def test_a_feature_that_is_claimed_works(flag: str, encoder: BundledEncoder) -> None:
    claimed = LISTING["vectorstores"][0][flag]
    assert claimed == (flag in TRIALS), "a claim needs a trial"
    if claimed:
        documents = [
            Document(id="ant", page_content="Ants live in colonies.", metadata={"legs": 6}),
            Document(id="owl", page_content="Owls hunt at night.", metadata={"legs": 2}),
        ]
        with MuveraVectorStore.from_documents(documents, encoder=encoder) as store:
            TRIALS[flag](store)

"""LangChain's indexing API, with its record manager, over a MuveraVectorStore."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index

from langchain_muvera import MuveraVectorStore
from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder


def page(text: str, source: str) -> Document:
    return Document(page_content=text, metadata={"source": source})


OWL, OWL_2, ANT, HERON = (
    page("Owls hunt at night.", "birds"),
    page("Owls hunt by ear.", "birds"),
    page("Ants live in colonies.", "insects"),
    page("Herons stand still.", "birds"),
)


@pytest.fixture
def store(encoder: BundledEncoder) -> Iterator[MuveraVectorStore]:
    with MuveraVectorStore(MuveraIndex.create(None, encoder)) as made:
        yield made


@pytest.fixture
def records() -> InMemoryRecordManager:
    manager = InMemoryRecordManager("animals")
    manager.create_schema()
    return manager


def texts(store: MuveraVectorStore) -> list[str]:
    return sorted(document.text or "" for document in store.index.find())


def counts(added: int = 0, updated: int = 0, skipped: int = 0, deleted: int = 0) -> dict[str, int]:
    return {"num_added": added, "num_updated": updated, "num_skipped": skipped, "num_deleted": deleted}


SETTINGS: dict[str, Any] = {"source_id_key": "source", "key_encoder": "sha256"}


def test_incremental_cleanup_replaces_what_a_source_no_longer_says(
    store: MuveraVectorStore, records: InMemoryRecordManager
) -> None:
    assert index([OWL, ANT], records, store, cleanup="incremental", **SETTINGS) == counts(added=2)
    assert index([OWL, ANT, OWL], records, store, cleanup="incremental", **SETTINGS) == counts(skipped=3)
    assert index([OWL_2], records, store, cleanup="incremental", **SETTINGS) == counts(added=1, deleted=1)
    assert texts(store) == [ANT.page_content, OWL_2.page_content]
    assert index([], records, store, cleanup="incremental", **SETTINGS) == counts()


def test_full_cleanup_leaves_only_what_was_given(store: MuveraVectorStore, records: InMemoryRecordManager) -> None:
    index([OWL, ANT, HERON], records, store, cleanup="full", **SETTINGS)
    assert index([OWL], records, store, cleanup="full", **SETTINGS) == counts(skipped=1, deleted=2)
    assert texts(store) == [OWL.page_content]
    assert index([], records, store, cleanup="full", **SETTINGS) == counts(deleted=1)
    assert texts(store) == []


def test_scoped_full_cleanup_spares_other_sources(store: MuveraVectorStore, records: InMemoryRecordManager) -> None:
    index([OWL, ANT, HERON], records, store, cleanup="scoped_full", **SETTINGS)
    given = [HERON, OWL_2]
    assert index(given, records, store, batch_size=1, cleanup="scoped_full", **SETTINGS) == counts(
        added=1, skipped=1, deleted=1
    )
    assert texts(store) == [ANT.page_content, HERON.page_content, OWL_2.page_content]


def test_no_cleanup_only_adds_and_a_forced_update_keeps_one_of_each(
    store: MuveraVectorStore, records: InMemoryRecordManager
) -> None:
    index([OWL], records, store, cleanup=None, **SETTINGS)
    assert index([OWL_2], records, store, cleanup=None, **SETTINGS) == counts(added=1)
    assert index([OWL, OWL_2], records, store, cleanup=None, force_update=True, **SETTINGS) == counts(updated=2)
    assert texts(store) == [OWL.page_content, OWL_2.page_content]


async def test_the_async_api_cleans_up_alike(store: MuveraVectorStore, records: InMemoryRecordManager) -> None:
    assert await aindex([OWL, ANT], records, store, cleanup="incremental", **SETTINGS) == counts(added=2)
    assert await aindex([OWL_2], records, store, cleanup="incremental", **SETTINGS) == counts(added=1, deleted=1)
    assert await aindex([ANT], records, store, cleanup="full", **SETTINGS) == counts(skipped=1, deleted=1)
    assert texts(store) == [ANT.page_content]


def test_it_goes_on_in_a_reopened_folder(
    tmp_path: Path, encoder: BundledEncoder, records: InMemoryRecordManager
) -> None:
    with MuveraVectorStore.from_texts([], path=tmp_path, encoder=encoder) as store:
        index([OWL, ANT], records, store, cleanup="full", **SETTINGS)
    with MuveraVectorStore.load(tmp_path, encoder) as store:
        assert index([OWL, HERON], records, store, cleanup="full", **SETTINGS) == counts(added=1, skipped=1, deleted=1)
        assert texts(store) == [HERON.page_content, OWL.page_content]

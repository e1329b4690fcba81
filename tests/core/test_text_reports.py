"""Warnings name the document that they are about."""

from __future__ import annotations

import asyncio
import threading
import warnings

import pytest

from muvera_core import TextEncoder, score_texts
from muvera_core.encoders import BundledEncoder, naming
from muvera_core.encoders.text.naming import document_name
from muvera_core.errors import TruncatedTextWarning

LONG = "A heron waits at the pond. " * 3


@pytest.fixture(scope="module")
def short() -> BundledEncoder:
    return BundledEncoder(max_document_tokens=7, max_query_tokens=7)


def test_a_document_is_called_by_its_name(short: BundledEncoder) -> None:
    with naming(["a", "b.txt"]), pytest.warns(TruncatedTextWarning, match="^document 'b.txt' is too long"):
        short.encode_documents(["short", LONG])
    with pytest.warns(TruncatedTextWarning, match=r"^text 2 of this call \('A heron waits"):
        short.encode_documents(["short", LONG])


def test_names_for_other_texts_are_not_used(short: BundledEncoder) -> None:
    with naming(["a", "b", "c"]), pytest.warns(TruncatedTextWarning, match="^text 1 of this call"):
        short.encode_documents([LONG])


def test_a_question_has_no_name(short: BundledEncoder) -> None:
    with naming(["a"]), pytest.warns(TruncatedTextWarning, match="^the question is too long"):
        short.encode_queries([LONG])
    with pytest.warns(TruncatedTextWarning, match="^question 2 of this call"):
        short.encode_queries(["heron", LONG])


def test_places_count_through_all_batches(short: BundledEncoder) -> None:
    texts = ["", "short", "short", LONG]
    with pytest.warns(TruncatedTextWarning, match="^text 4 of this call"):
        score_texts(short, "heron", texts, batch_size=2)
    with pytest.warns(TruncatedTextWarning, match="^text 4 of this call"):
        TextEncoder(short, batch_size=3).encode_documents(texts)


def test_a_text_that_is_too_long_even_to_be_read_says_so(short: BundledEncoder) -> None:
    with pytest.warns(TruncatedTextWarning, match=r"characters 1920 to 50000 .* limit is 7 tokens and 1920 characters"):
        embeddings = short.encode_documents(["z" * 50_000])
    assert embeddings.lengths.tolist() == [1]


def test_threads_and_tasks_have_names_of_their_own() -> None:
    seen: dict[str, str] = {}
    both_are_inside = threading.Barrier(2, timeout=10)

    def in_thread(name: str) -> None:
        with naming([name]):
            both_are_inside.wait()
            seen[name] = document_name(["text"], 0)

    async def in_task(name: str) -> None:
        with naming([name]):
            await asyncio.sleep(0)
            seen[name] = document_name(["text"], 0)

    async def tasks() -> None:
        await asyncio.gather(in_task("task 1"), in_task("task 2"))

    threads = [threading.Thread(target=in_thread, args=(name,)) for name in ("thread 1", "thread 2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(tasks())
    assert seen == {name: f"document {name!r}" for name in ("thread 1", "thread 2", "task 1", "task 2")}
    assert document_name(["text"], 0).startswith("text 1")


def test_a_warning_that_is_an_error_leaves_the_encoder_usable(short: BundledEncoder) -> None:
    expected = short.encode_documents(["short"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", TruncatedTextWarning)
        with pytest.raises(TruncatedTextWarning), naming(["a"]):
            short.encode_documents([LONG])
    assert document_name(["text"], 0).startswith("text 1")
    assert (short.encode_documents(["short"]).vectors == expected.vectors).all()

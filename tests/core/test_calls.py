"""Calls around searching: opening what may exist, adding again, reranking, reading, refreshing, planning."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera_core import FDEConfig, MuveraIndex, TextEncoder, TokenEmbeddings, maxsim
from muvera_core.encoders import BundledEncoder, PrecomputedEmbeddings
from muvera_core.errors import (
    DimensionMismatchError,
    EncoderMismatchError,
    IndexExistsError,
    InvalidInputError,
    MuveraError,
    ReadOnlyIndexError,
    SkippedTextWarning,
)
from muvera_core.maintenance import read_info
from muvera_core.token_embeddings import unit_length

BIRDS = {
    "owl": "Owls hunt at night.",
    "heron": "Herons stand still in shallow water.",
    "swift": "Swifts sleep while they fly.",
    "ant": "Ants live in colonies.",
}
IDS, TEXTS = list(BIRDS), list(BIRDS.values())
LEGS: list[dict[str, Any]] = [{"legs": 2}, {"legs": 2}, {"legs": 2}, {"legs": 6}]
QUESTION = "Which bird is active after dark?"


class CountingEncoder(BundledEncoder):
    """Notes which documents it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[str] = []

    def encode_documents(self, texts: Any) -> TokenEmbeddings:
        self.encoded += texts
        return super().encode_documents(texts)


@pytest.fixture(params=["memory", "folder"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MuveraIndex]:
    path = None if request.param == "memory" else tmp_path / "birds"
    with MuveraIndex.create(path, CountingEncoder()) as made:
        made.add(TEXTS, IDS, LEGS)
        encoded_by(made).clear()
        yield made


def encoded_by(index: MuveraIndex) -> list[str]:
    assert isinstance(index.encoder, CountingEncoder)
    return index.encoder.encoded


def ids(hits: Any) -> list[str]:
    return [hit.id for hit in hits]


# Opening


def test_open_or_create_makes_an_index_once_and_opens_it_later(tmp_path: Path, encoder: BundledEncoder) -> None:
    for _ in range(2):
        with MuveraIndex.open_or_create(tmp_path / "birds", encoder, pool_factor=1) as index:
            index.add(TEXTS, IDS)
            assert len(index) == 4
    with MuveraIndex.open_or_create(tmp_path / "birds", encoder) as index:
        assert ids(index.search(QUESTION, k=1)) == ["owl"]


@pytest.mark.parametrize(
    "setting",
    [{"pool_factor": 2}, {"token_precision": "float16"}, {"fde": FDEConfig(dimension=128, num_repetitions=7)}],
)
def test_open_or_create_refuses_settings_that_the_index_does_not_have(
    tmp_path: Path, encoder: BundledEncoder, setting: dict[str, Any]
) -> None:
    MuveraIndex.create(tmp_path / "birds", encoder).close()
    with pytest.raises(InvalidInputError, match=f"was made with {next(iter(setting))}="):
        MuveraIndex.open_or_create(tmp_path / "birds", encoder, **setting)
    MuveraIndex.open(tmp_path / "birds", encoder).close()  # the refused one holds no lock


def test_open_or_create_refuses_what_create_and_open_refuse(tmp_path: Path, encoder: BundledEncoder) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(IndexExistsError, match="not empty"):
        MuveraIndex.open_or_create(tmp_path, encoder)
    MuveraIndex.create(tmp_path / "other", PrecomputedEmbeddings(128, "other")).close()
    with pytest.raises(EncoderMismatchError):
        MuveraIndex.open_or_create(tmp_path / "other", encoder)


@pytest.mark.parametrize("existed", [False, True])
def test_an_index_whose_filling_fails_leaves_nothing(tmp_path: Path, encoder: BundledEncoder, existed: bool) -> None:
    path = tmp_path / "birds"
    if existed:
        path.mkdir()
    with pytest.raises(InvalidInputError, match="more than once"), MuveraIndex.creating(path, encoder) as index:
        index.add(["One.", "Two."], ["a", "a"])
    assert path.exists() == existed
    assert not existed or not any(path.iterdir())
    with MuveraIndex.creating(path, encoder, pool_factor=2) as index:
        index.add(["Owls hunt at night."])
    assert len(index) == 1
    index.close()


def test_creating_suggests_the_right_name_for_a_setting(encoder: BundledEncoder) -> None:
    with pytest.raises(InvalidInputError, match="did you mean 'pool_factor'"), MuveraIndex.creating(None, pool_facto=2):
        raise AssertionError("the block must not run")


def test_a_tilde_in_a_path_is_the_home_folder(
    tmp_path: Path, encoder: BundledEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with MuveraIndex.create("~/birds", encoder) as index:
        assert index.path == tmp_path / "birds"
    with pytest.raises(InvalidInputError, match="home folder"):
        MuveraIndex.open("~nobody-of-this-name/birds", encoder)


def test_info_shows_the_encoders_name_and_settings(tmp_path: Path) -> None:
    MuveraIndex.create(tmp_path / "birds", BundledEncoder(max_query_tokens=32)).close()
    noted = read_info(tmp_path / "birds").as_json()["encoder_info"]
    assert noted["name"] == "BundledEncoder"
    assert noted["settings"]["max_query_tokens"] == 32


def test_settings_that_json_cannot_hold_do_not_keep_an_index_from_being_made(tmp_path: Path) -> None:
    class Odd(BundledEncoder):
        settings = {"model": object()}  # noqa: RUF012

    MuveraIndex.create(tmp_path / "birds", Odd()).close()
    assert read_info(tmp_path / "birds").manifest.encoder_info == {
        "name": Odd.__qualname__,
        "settings": {},
    }


# Adding


def test_what_is_unchanged_is_not_encoded_again(index: MuveraIndex) -> None:
    before = index.search(QUESTION)
    assert index.add(TEXTS, IDS, LEGS) == IDS
    assert encoded_by(index) == []
    assert index.search(QUESTION) == before


def test_only_changed_texts_are_encoded_and_the_rest_stays(index: MuveraIndex) -> None:
    texts = {**BIRDS, "ant": "Ants carry leaves.", "bee": "Bees make honey."}
    index.add(list(texts.values()), list(texts), [*LEGS, {"legs": 6}])
    assert sorted(encoded_by(index)) == ["Ants carry leaves.", "Bees make honey."]
    assert {document.id: document.text for document in index.find()} == texts
    assert ids(index.search("Who carries leaves?", k=1)) == ["ant"]


def test_new_metadata_alone_encodes_nothing_and_changes_no_score(index: MuveraIndex) -> None:
    before = index.search(QUESTION)
    index.add(TEXTS, IDS, [{"seen": i} for i in range(4)])
    assert encoded_by(index) == []
    after = index.search(QUESTION)
    assert [(hit.id, hit.score) for hit in after] == [(hit.id, hit.score) for hit in before]
    assert [hit.metadata for hit in after] == [{"seen": list(BIRDS).index(hit.id)} for hit in after]
    assert ids(index.find({"seen": {"$gte": 2}})) == ["swift", "ant"]
    assert index.count({"legs": 2}) == 0


def test_force_encodes_everything(index: MuveraIndex) -> None:
    index.add(TEXTS, IDS, LEGS, force=True)
    assert sorted(encoded_by(index)) == sorted(TEXTS)


@pytest.mark.parametrize("value", [1.0, True, "1"])
def test_values_that_json_tells_apart_are_a_change(index: MuveraIndex, value: Any) -> None:
    index.add([BIRDS["owl"]], ["owl"], [{"n": 1}])
    index.add([BIRDS["owl"]], ["owl"], [{"n": value}])
    (found,) = index.get("owl")
    assert type(found.metadata["n"]) is type(value)


def test_documents_come_from_iterators(index: MuveraIndex) -> None:
    added = index.add(
        (f"Note {i} about cranes." for i in range(5)),
        (f"note{i}" for i in range(5)),
        ({"n": i} for i in range(5)),
        batch_size=2,
    )
    assert added == [f"note{i}" for i in range(5)]
    assert ids(index.find({"n": {"$exists": True}})) == added


def test_what_is_saved_survives_reopening(tmp_path: Path, encoder: BundledEncoder) -> None:
    with MuveraIndex.create(tmp_path / "birds", encoder) as index:
        index.add(TEXTS, IDS, LEGS)
        index.add([*TEXTS, "Bees make honey."], [*IDS, "bee"], [{"seen": True}] * 5)
        expected = index.search(QUESTION)
    with MuveraIndex.open(tmp_path / "birds", encoder) as index:
        assert index.search(QUESTION) == expected
        assert index.compact() >= 0
        assert index.search(QUESTION) == expected


@pytest.mark.parametrize("blank", ["", " \n\t", "\x0c", "\u200b\u200b", "\ufeff", "\x00\x01", "\u00ad"])
def test_a_text_without_a_visible_character_is_skipped_and_the_others_are_stored(
    index: MuveraIndex, blank: str
) -> None:
    with pytest.warns(SkippedTextWarning, match=r"skipped 1 of 3 texts.*'empty'"):
        added = index.add(["Bees make honey.", blank, "Bats find moths."], ["bee", "empty", "bat"])
    assert added == ["bee", "empty", "bat"]
    assert len(index) == 6
    assert "empty" not in index


def test_a_page_that_became_blank_does_not_remove_what_is_stored(index: MuveraIndex) -> None:
    with pytest.warns(SkippedTextWarning):
        index.add([" "], ["owl"])
    assert index.get("owl")[0].text == BIRDS["owl"]


def test_half_of_a_surrogate_pair_costs_one_character(index: MuveraIndex) -> None:
    index.add(["Larks\ud835 sing in the morning."], ["lark"], [{"title": "a\ud835"}])
    assert index.get("lark")[0].text == "Larks\ufffd sing in the morning."
    assert ids(index.search("Who sings\udc00 in the morning?", k=1)) == ["lark"]


@pytest.mark.parametrize("wrong", [None, 3, b"bytes", ["nested"]])
def test_what_is_no_text_is_refused_and_nothing_is_stored(index: MuveraIndex, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"texts\[1\] must be a string"):
        index.add(["Bees make honey.", wrong])
    assert len(index) == 4


# Metadata


def test_updating_metadata_adds_to_it_or_replaces_it(index: MuveraIndex) -> None:
    assert index.update_metadata(["owl", "nobody", "ant"], {"seen": True}) == 2
    assert index.get("ant")[0].metadata == {"legs": 6, "seen": True}
    assert index.update_metadata("ant", {"seen": True}) == 0
    assert index.update_metadata(["ant", "owl"], [{"n": 1}, {"n": 2}], replace=True) == 2
    assert [document.metadata for document in index.get(["ant", "owl"])] == [{"n": 1}, {"n": 2}]
    assert encoded_by(index) == []
    assert ids(index.search(QUESTION, k=1, filter={"n": 2})) == ["owl"]
    assert len(index) == 4


@pytest.mark.parametrize("metadatas", [[{}], {"x": object()}, "text", [{}, 3]])
def test_metadata_that_cannot_be_stored_changes_nothing(index: MuveraIndex, metadatas: Any) -> None:
    with pytest.raises(InvalidInputError):
        index.update_metadata(["ant", "owl"], metadatas)
    with pytest.raises(InvalidInputError, match="more than once"):
        index.update_metadata(["ant", "ant"], {"seen": True})
    assert index.get("ant")[0].metadata == {"legs": 6}


def test_many_documents_of_a_graph_get_new_metadata() -> None:
    rng = np.random.default_rng(0)
    tokens = unit_length(rng.standard_normal((20_800, 8)).astype(np.float32)).reshape(10_400, 2, 8)
    with MuveraIndex.create(None, PrecomputedEmbeddings(8, "random"), FDEConfig(dimension=8, num_repetitions=2)) as big:
        names = [str(i) for i in range(10_400)]
        big.add_embeddings(list(tokens), names, texts=names)
        assert big.update_metadata(names[:9000], {"old": True}) == 9000
        assert big.count({"old": True}) == 9000
        found = [big.search_embeddings(tokens[i], k=1)[0].id for i in range(0, 10_400, 208)]
        assert found == names[::208]


# Searching


def test_ids_restrict_a_search(index: MuveraIndex) -> None:
    assert ids(index.search(QUESTION, ids=["ant", "heron", "nobody"])) == ["heron", "ant"]
    assert ids(index.search(QUESTION, ids=["ant", "heron"], filter={"legs": 6})) == ["ant"]
    assert index.search(QUESTION, ids=[]) == []
    assert ids(index.search_diverse(QUESTION, 2, ids=["ant", "swift"])) == ["swift", "ant"]


def test_min_score_leaves_out_weak_hits(index: MuveraIndex) -> None:
    hits = index.search(QUESTION)
    assert index.search(QUESTION, min_score=hits[1].normalized_score) == hits[:2]
    assert index.search(QUESTION, min_score=1) == []
    assert len(index.search(QUESTION, min_score=0)) == 4
    with pytest.raises(InvalidInputError, match="min_score"):
        index.search(QUESTION, min_score=1.5)


def test_reranking_orders_what_another_search_found(index: MuveraIndex) -> None:
    everything = index.search(QUESTION, exact=True)
    wanted = ["ant", "owl", "nobody", "swift"]
    assert index.rerank(QUESTION, wanted) == [hit for hit in everything if hit.id in wanted]
    assert ids(index.rerank(QUESTION, wanted, 1)) == ["owl"]
    assert index.rerank(QUESTION, []) == []
    assert index.rerank(QUESTION, wanted, min_score=1) == []


@pytest.mark.parametrize("empty", ["", " \n", "\u200b"])
def test_an_empty_question_returns_what_the_filter_admits_or_nothing(index: MuveraIndex, empty: str) -> None:
    assert index.search(empty) == []
    hits = index.search(empty, 2, filter={"legs": 2}, min_score=0.9)
    assert [(hit.id, hit.score, hit.normalized_score) for hit in hits] == [("owl", 0, 0), ("heron", 0, 0)]
    assert ids(index.search(empty, ids=["ant"])) == ["ant"]
    mixed = index.search_batch([empty, QUESTION, empty], k=1)
    assert [ids(hits) for hits in mixed] == [[], ["owl"], []]
    assert index.search_diverse(empty) == []
    first, second = ids(index.search_diverse(empty, 2, filter={"legs": 2}))
    assert first == "owl"
    assert second in ("heron", "swift"), "either, whichever is less like the owl"


def test_an_empty_filter_does_not_delete_everything(index: MuveraIndex) -> None:
    for named in (None, ["owl"]):
        with pytest.raises(InvalidInputError, match="clear"):
            index.delete(named, filter={})
    assert len(index) == 4
    assert index.clear() == 4


def test_a_vector_finds_roughly_what_its_question_finds(index: MuveraIndex) -> None:
    encoder = TextEncoder(index.encoder)
    hits = index.search_by_vector(encoder.encode_queries([QUESTION])[0], k=3)
    assert "owl" in ids(hits)
    cosines = encoder.encode_queries([QUESTION]) @ encoder.encode_documents([BIRDS[hit.id] for hit in hits]).T
    np.testing.assert_allclose([hit.score for hit in hits], cosines[0], atol=0.02)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert ids(index.search_by_vector(encoder.encode_queries([QUESTION])[0], filter={"legs": 6})) == ["ant"]


@pytest.mark.parametrize("vector", [[0.0], np.zeros((2, 2560)), np.full(2560, np.nan), ["a"]])
def test_a_vector_that_is_no_encoding_of_the_index_is_refused(index: MuveraIndex, vector: Any) -> None:
    with pytest.raises(InvalidInputError):
        index.search_by_vector(vector)


def test_an_index_whose_vectors_no_one_else_has_refuses_a_vector(encoder: BundledEncoder) -> None:
    with MuveraIndex.create(None, encoder, FDEConfig(dimension=128, center=True)) as index:
        index.add(TEXTS)
        with pytest.raises(InvalidInputError, match="centred"):
            index.search_by_vector(np.zeros(2560))


def test_a_plan_says_how_a_search_would_go(index: MuveraIndex) -> None:
    plan = index.plan()
    assert plan.n_documents == plan.n_admitted == 4
    assert index.plan(filter={"legs": 6}).n_admitted == 1
    assert index.plan(ids=["ant", "owl"], filter={"legs": 2}).n_admitted == 1
    assert plan.reason


# Reading


def test_embeddings_come_back_as_they_score(index: MuveraIndex) -> None:
    stored = index.get_embeddings(["ant", "nobody", "owl", "ant"])
    assert list(stored) == ["ant", "owl"]
    query = index.encoder.encode_queries([QUESTION]).vectors
    scores = maxsim(query, TokenEmbeddings.from_list(list(stored.values())))
    expected = {hit.id: hit.score for hit in index.search(QUESTION, exact=True)}
    np.testing.assert_allclose(scores, [expected["ant"], expected["owl"]], rtol=1e-4)
    assert index.get_embeddings([]) == {}


def test_documents_are_counted_and_read_page_by_page(index: MuveraIndex) -> None:
    assert index.count() == 4
    assert index.count({"legs": 2}) == 3
    assert [ids(index.find(limit=2, offset=start)) for start in (0, 2, 4)] == [["owl", "heron"], ["swift", "ant"], []]
    assert ids(index.find({"legs": 2}, offset=1)) == ["heron", "swift"]
    with pytest.raises(InvalidInputError, match="offset"):
        index.find(offset=-1)


def test_iterating_sees_each_lasting_document_once_while_others_come_and_go(index: MuveraIndex) -> None:
    index.add((f"Note {i}." for i in range(20)), (f"n{i}" for i in range(20)))
    seen = []
    for i, document in enumerate(index.iterate(batch_size=3)):
        seen.append(document.id)
        if i == 2:
            index.delete(["n18", "n19"])
            index.add(["A late note."], ["late"])
    assert [id for id in seen if id != "late"] == [*BIRDS, *(f"n{i}" for i in range(18))]
    assert ids(index.iterate({"legs": 6})) == ["ant"]
    assert list(index.iterate({"legs": 7})) == []


def test_iterating_a_closed_index_says_so(index: MuveraIndex) -> None:
    pages = index.iterate(batch_size=1)
    next(pages)
    index.close()
    with pytest.raises(MuveraError, match="closed"):
        next(pages)


# Refreshing


def test_a_reader_takes_in_new_documents_by_itself(tmp_path: Path, encoder: BundledEncoder) -> None:
    with (
        MuveraIndex.create(tmp_path / "birds", encoder) as writer,
        MuveraIndex.open(tmp_path / "birds", encoder, read_only=True, refresh_interval=0) as reader,
        MuveraIndex.open(tmp_path / "birds", encoder, read_only=True, refresh_interval=None) as still,
    ):
        reads: tuple[Callable[[MuveraIndex], list[str]], ...] = (
            lambda index: ids(index.search(QUESTION, 1)),
            lambda index: ids(index.get(["owl"])),
            lambda index: ids(index.find()),
            lambda index: [id for id in ["owl"] if id in index],
            lambda index: ["owl"] * len(index),
        )
        for read in reads:
            writer.add([BIRDS["owl"]], ["owl"])
            assert read(reader) == ["owl"]
            assert read(still) == []
            writer.delete("owl")
            assert read(reader) == []
        assert still.refresh() is True


def test_a_reader_looks_again_after_the_interval(tmp_path: Path, encoder: BundledEncoder) -> None:
    with (
        MuveraIndex.create(tmp_path / "birds", encoder) as writer,
        MuveraIndex.open(tmp_path / "birds", encoder, read_only=True, refresh_interval=0.5) as reader,
    ):
        writer.add([BIRDS["owl"]], ["owl"])
        deadline = time.monotonic() + 20
        while "owl" not in reader and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "owl" in reader


def test_reads_wait_for_commits_that_another_read_takes_in(
    tmp_path: Path, encoder: BundledEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        MuveraIndex.create(tmp_path / "birds", encoder) as writer,
        MuveraIndex.open(tmp_path / "birds", encoder, read_only=True, refresh_interval=0) as reader,
        ThreadPoolExecutor(2) as pool,
    ):
        collection, began, may_end = reader.engine.collection, threading.Event(), threading.Event()
        catch_up = collection.catch_up

        def slowly() -> bool:
            began.set()
            may_end.wait(20)
            return catch_up()

        monkeypatch.setattr(collection, "catch_up", slowly)
        writer.add([BIRDS["owl"]], ["owl"])
        first = pool.submit(len, reader)
        assert began.wait(20)
        second = pool.submit(len, reader)  # it begins after the addition was acknowledged
        wait([second], timeout=0.5)
        may_end.set()
        assert (first.result(), second.result()) == (1, 1)


def test_searches_go_on_while_one_of_them_refreshes(tmp_path: Path, encoder: BundledEncoder) -> None:
    with (
        MuveraIndex.create(tmp_path / "birds", encoder) as writer,
        MuveraIndex.open(tmp_path / "birds", encoder, read_only=True, refresh_interval=0) as reader,
    ):
        writer.add(TEXTS, IDS)
        failures: list[BaseException] = []

        def keep_searching() -> None:
            try:
                for _ in range(30):
                    assert ids(reader.search(QUESTION, 1)) in (["owl"], [])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=keep_searching) for _ in range(4)]
        for thread in threads:
            thread.start()
        for i in range(10):
            writer.add([f"Note {i}."])
        for thread in threads:
            thread.join()
        assert not failures
        assert len(reader) == 14


def test_a_failed_look_leaves_the_reader_with_what_it_has(
    tmp_path: Path, encoder: BundledEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    with MuveraIndex.create(tmp_path / "birds", encoder) as writer:
        writer.add(TEXTS, IDS)
        with MuveraIndex.open(tmp_path / "birds", encoder, read_only=True, refresh_interval=0) as reader:
            writer.add(["Bees make honey."], ["bee"])
            tokens = next((tmp_path / "birds").glob("tokens-*.bin"))
            content = tokens.read_bytes()
            tokens.write_bytes(content[:-4000])
            assert ids(reader.search(QUESTION, 1, ids=["owl"])) == ["owl"]
            tokens.write_bytes(content)


def test_a_negative_interval_is_refused(tmp_path: Path, encoder: BundledEncoder) -> None:
    MuveraIndex.create(tmp_path / "birds", encoder).close()
    for wrong in (-1, "often", True, float("nan")):
        with pytest.raises(InvalidInputError, match="refresh_interval"):
            MuveraIndex.open(tmp_path / "birds", encoder, read_only=True, refresh_interval=wrong)  # type: ignore[arg-type]


def test_a_reader_refuses_the_new_writes_too(tmp_path: Path, encoder: BundledEncoder) -> None:
    MuveraIndex.create(tmp_path / "birds", encoder).close()
    with MuveraIndex.open(tmp_path / "birds", encoder, read_only=True) as reader, pytest.raises(ReadOnlyIndexError):
        reader.update_metadata("owl", {"n": 1})


def test_widths_are_compared_before_a_vector_is_searched_for(index: MuveraIndex) -> None:
    with pytest.raises(DimensionMismatchError, match="2560"):
        index.search_by_vector(np.zeros(12))


def test_the_keys_and_values_of_a_dictionary_are_lists(index: MuveraIndex) -> None:
    notes = {"new": "Swifts sleep in the air.", "newer": "Herons stand still."}
    assert index.add(notes.values(), ids=notes.keys()) == ["new", "newer"]

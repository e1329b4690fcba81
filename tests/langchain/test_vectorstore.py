from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from langchain_muvera import MuveraEmbeddings, MuveraVectorStore
from muvera_core import FDEConfig, MuveraIndex, TokenEmbeddings
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import IndexClosedError, IndexExistsError, InvalidInputError, ReadOnlyIndexError

ANIMALS = [
    Document(id="owl", page_content="Owls hunt at night.", metadata={"legs": 2, "habit": {"active": "night"}}),
    Document(id="ant", page_content="Ants live in colonies.", metadata={"legs": 6, "tags": ["social", "small"]}),
    Document(id="heron", page_content="Herons stand still in water.", metadata={"legs": 2, "habit": {"active": "day"}}),
    Document(id="bat", page_content="Bats find moths in the dark by echo.", metadata={"legs": 2, "tags": ["small"]}),
    Document(id="shark", page_content="Sharks smell blood from afar.", metadata={"legs": 0}),
]
NOCTURNAL = "Which animal is active at night?"


class TestOfficialSuite(VectorStoreIntegrationTests):
    # The suite offers ``get_embeddings()``, single vectors of random numbers, which a late-interaction store can't use.
    @pytest.fixture
    def vectorstore(self, encoder: BundledEncoder) -> Iterator[VectorStore]:
        with MuveraVectorStore(MuveraIndex.create(None, encoder)) as store:
            yield store


@pytest.fixture
def animals(encoder: BundledEncoder) -> Iterator[MuveraVectorStore]:
    with MuveraVectorStore.from_documents(ANIMALS, encoder=encoder) as store:
        yield store


def ids_of(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


# Making and opening


def test_texts_in_a_folder_are_there_after_reopening(tmp_path: Path, encoder: BundledEncoder) -> None:
    texts = [document.page_content for document in ANIMALS]
    store = MuveraVectorStore.from_texts(texts, ids=["a", "b", "c", "d", "e"], path=tmp_path / "birds", encoder=encoder)
    before = store.similarity_search_with_score(NOCTURNAL)
    store.close()
    with MuveraVectorStore.load(tmp_path / "birds", encoder) as again:
        assert again.similarity_search_with_score(NOCTURNAL) == before
        again.add_texts(["Moths fly to the light."], ids=["f"])
    with MuveraVectorStore.load(tmp_path / "birds", encoder, read_only=True) as reader:
        assert ids_of(reader.get_by_ids(["f", "a"])) == ["f", "a"]
        with pytest.raises(ReadOnlyIndexError):
            reader.add_texts(["Crows are clever."])
    with pytest.raises(InvalidInputError, match="device must be"):
        MuveraVectorStore.load(tmp_path / "birds", encoder, device="abacus")


async def test_async_twins_make_the_same_store(tmp_path: Path, encoder: BundledEncoder) -> None:
    with await MuveraVectorStore.afrom_documents(ANIMALS, path=tmp_path / "one", encoder=encoder) as store:
        assert store.index.path == tmp_path / "one"
        assert sorted(map(str, ids_of(await store.asimilarity_search(NOCTURNAL, k=9)))) == sorted(
            str(document.id) for document in ANIMALS
        )
    with await MuveraVectorStore.afrom_texts(["Owls hunt at night."], ids=["owl"], encoder=encoder) as store:
        assert ids_of(await store.asimilarity_search("owl")) == ["owl"]


def test_from_texts_can_pool_tokens(encoder: BundledEncoder) -> None:
    pytest.importorskip("scipy", reason="SciPy isn't installed (muvera-core[pooling])")
    n_tokens = {}
    for factor in (1, 2):
        with MuveraVectorStore.from_documents(ANIMALS, encoder=encoder, pool_factor=factor) as store:
            n_tokens[factor] = store.index.n_tokens
            assert store.similarity_search(NOCTURNAL, k=1)[0].id == "owl"
    assert n_tokens[2] < 0.7 * n_tokens[1]


def test_from_texts_can_store_tokens_in_fewer_bits(encoder: BundledEncoder) -> None:
    with MuveraVectorStore.from_documents(ANIMALS, encoder=encoder, token_precision="4bit") as store:
        assert store.index.token_precision == "4bit"
        assert store.similarity_search(NOCTURNAL, k=1)[0].id == "owl"


def test_an_index_is_never_overwritten_by_from_texts(tmp_path: Path, encoder: BundledEncoder) -> None:
    MuveraVectorStore.from_texts(["Owls hunt at night."], ids=["owl"], path=tmp_path, encoder=encoder).close()
    with pytest.raises(IndexExistsError):
        MuveraVectorStore.from_texts(["Ants live in colonies."], path=tmp_path, encoder=encoder)
    with MuveraVectorStore.load(tmp_path, encoder) as store:
        assert ids_of(store.get_by_ids(["owl"])) == ["owl"]


@pytest.mark.parametrize(
    "wrong",
    [{"ids": ["a", "a"]}, {"ids": ["a"]}, {"metadatas": [{}]}, {"metadatas": [{"x": object()}, {}]}, {"batch_size": 0},
     {"pool_factor": 0}, {"device": "abacus"}, {"persist_directory": "birds"}],
)  # fmt: skip
def test_a_failed_from_texts_leaves_nothing_behind(
    tmp_path: Path, encoder: BundledEncoder, wrong: dict[str, Any]
) -> None:
    for folder in (tmp_path / "empty", tmp_path / "new"):
        if folder.name == "empty":
            folder.mkdir()
        with pytest.raises(InvalidInputError):
            MuveraVectorStore.from_texts(["Owls hunt at night.", "Ants."], path=folder, encoder=encoder, **wrong)
    assert [file.name for file in tmp_path.rglob("*")] == ["empty"]
    MuveraVectorStore.from_texts(["Owls hunt at night."], path=tmp_path / "empty", encoder=encoder).close()


def test_a_folder_is_opened_or_made(tmp_path: Path, encoder: BundledEncoder) -> None:
    for run in range(2):
        with MuveraVectorStore.open_or_create(tmp_path / "birds", encoder) as store:
            assert store.count() == 2 * run
            assert store.add_texts(["Owls hunt at night.", "Herons stand still."], ids=["owl", "heron"]) == [
                "owl",
                "heron",
            ]
            assert store.similarity_search(NOCTURNAL, k=1)[0].id == "owl"
    with pytest.raises(InvalidInputError, match="pool_factor=1, which cannot be changed, got 2"):
        MuveraVectorStore.open_or_create(tmp_path / "birds", encoder, pool_factor=2)
    with pytest.raises(InvalidInputError, match="fde"):
        MuveraVectorStore.open_or_create(tmp_path / "birds", encoder, FDEConfig(num_repetitions=3))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(IndexExistsError):
        MuveraVectorStore.open_or_create(tmp_path / "other", encoder)


@pytest.mark.parametrize(("interval", "seen"), [(0, ["ant", "owl"]), (None, ["owl"])])
def test_a_reader_sees_what_the_writer_adds(
    tmp_path: Path, encoder: BundledEncoder, interval: float | None, seen: list[str]
) -> None:
    with MuveraVectorStore.from_texts(["Owls hunt at night."], ids=["owl"], path=tmp_path, encoder=encoder) as writer:
        settings: dict[str, Any] = {"read_only": True, "refresh_interval": interval}
        with MuveraVectorStore.load(tmp_path, encoder, **settings) as reader:
            retriever = reader.as_retriever()
            assert ids_of(retriever.invoke(NOCTURNAL)) == ["owl"]
            writer.add_texts(["Ants live in colonies."], ids=["ant"])
            assert sorted(map(str, ids_of(retriever.invoke(NOCTURNAL)))) == seen


def test_only_embeddings_that_give_token_vectors_are_taken(encoder: BundledEncoder) -> None:
    settings = FDEConfig(num_repetitions=4)
    embeddings = MuveraEmbeddings(encoder, settings)
    with MuveraVectorStore.from_texts(["Owls hunt at night."], embeddings) as store:
        assert store.index.encoder is encoder
        assert store.embeddings is None
    with pytest.raises(InvalidInputError, match="got DeterministicFakeEmbedding"):
        MuveraVectorStore.from_texts(["Owls hunt at night."], DeterministicFakeEmbedding(size=6))
    with pytest.raises(InvalidInputError, match=r"index must be a MuveraIndex, .*, got str"):
        MuveraVectorStore("birds.muvera")  # type: ignore[arg-type]


def test_saving_copies_to_another_folder_and_leaves_its_own_alone(
    tmp_path: Path, animals: MuveraVectorStore, encoder: BundledEncoder
) -> None:
    animals.save(tmp_path / "copy")
    animals.delete()
    with MuveraVectorStore.load(tmp_path / "copy", encoder) as store:
        store.save(tmp_path / "copy")
        assert store.get_by_ids([str(document.id) for document in ANIMALS]) == ANIMALS
        with pytest.raises(IndexExistsError):
            animals.save(tmp_path / "copy")


def test_saving_to_its_own_folder_does_nothing_however_the_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with MuveraVectorStore.from_texts(["Owls hunt at night."], path="~/birds") as store:
        store.save("~/birds")
        assert [path.name for path in tmp_path.iterdir()] == ["birds"]


def test_a_closed_store_says_so(encoder: BundledEncoder) -> None:
    store = MuveraVectorStore.from_texts(["Owls hunt at night."], encoder=encoder)
    store.close()
    with pytest.raises(IndexClosedError):
        store.similarity_search("owl")


# Adding and deleting


def test_ids_from_the_call_beat_those_of_documents(encoder: BundledEncoder) -> None:
    documents = [Document(id="own", page_content="Owls hunt at night.")]
    with MuveraVectorStore.from_documents(documents, encoder=encoder, ids=["given"]) as store:
        assert store.add_documents(documents, ids=["another"]) == ["another"]
        assert store.add_documents(documents) == ["own"]
        assert store.add_documents(documents, ids=None) == ["own"]
        assert ids_of(store.similarity_search("owl")) == ["given", "another", "own"]


def test_ids_are_made_up_only_where_there_are_none(encoder: BundledEncoder) -> None:
    documents = [
        Document(id="owl", page_content="Owls hunt at night."),
        Document(page_content="Ants live in colonies."),
    ]
    with MuveraVectorStore.from_documents(documents, encoder=encoder) as store:
        ids = ids_of(store.similarity_search("Owls hunt", k=9))
    assert ids[0] == "owl"
    assert len(str(ids[1])) == 32


async def test_inputs_are_left_as_they_were(encoder: BundledEncoder) -> None:
    documents, ids = copy.deepcopy(ANIMALS), [f"id-{i}" for i in range(len(ANIMALS))]
    metadatas: list[dict[str, Any]] = [{"n": [1]}]
    with MuveraVectorStore.from_documents(documents, encoder=encoder, ids=ids) as store:
        store.add_documents(documents, ids=ids)
        await store.aadd_documents(documents)
        await store.aadd_texts(["Crows are clever."], metadatas, ids=["crow"])
        found = store.similarity_search("crows", k=1)[0]
        found.metadata["n"].append(2)
        assert store.get_by_ids(["crow"])[0].metadata == {"n": [1]}
    assert documents == ANIMALS
    assert (ids, metadatas) == ([f"id-{i}" for i in range(len(ANIMALS))], [{"n": [1]}])


def test_a_generator_of_texts_will_do(encoder: BundledEncoder) -> None:
    with MuveraVectorStore(MuveraIndex.create(None, encoder)) as store:
        assert len(store.add_texts(text for text in ("Owls hunt at night.", "Ants live in colonies."))) == 2
        assert store.add_texts([]) == []


def test_what_cannot_be_added_is_refused_and_changes_nothing(animals: MuveraVectorStore) -> None:
    good = Document(page_content="Crows are clever.")
    for documents, ids, message in [
        ([good, Document(page_content="No JSON.", metadata={"x": object()})], None, "JSON"),
        ([good], [""], "is empty"),
        ([good, good], ["a", "a"], "more than once"),
        ([good], ["a", "b"], "ids has length 2, expected 1"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            animals.add_documents(documents, ids=ids)
    for texts, single in (("Crows are clever.", None), (["Crows are clever."], "crow")):
        with pytest.raises(InvalidInputError, match="str"):
            animals.add_texts(texts, ids=single)
    assert len(animals.index) == len(ANIMALS)


def test_delete_by_id_by_filter_by_both_and_everything(animals: MuveraVectorStore) -> None:
    assert animals.delete([]) is True
    assert animals.delete(["shark", "nobody"]) is True
    animals.delete(filter={"tags": "social"})
    animals.delete(["owl", "bat"], filter={"habit.active": "night"})
    assert sorted(map(str, ids_of(animals.similarity_search("animal", k=9)))) == ["bat", "heron"]
    with pytest.raises(InvalidInputError, match="empty filter"):
        animals.delete(filter={})
    assert animals.count() == 2
    assert animals.delete() is True
    assert animals.similarity_search("animal") == []


async def test_clear_deletes_everything_and_says_how_much(animals: MuveraVectorStore) -> None:
    assert animals.clear() == len(ANIMALS)
    assert animals.clear() == 0
    animals.add_documents(ANIMALS)
    assert await animals.aclear() == len(ANIMALS)
    assert animals.count() == 0


async def test_documents_are_counted_by_filter(animals: MuveraVectorStore) -> None:
    assert animals.count() == await animals.acount() == len(ANIMALS)
    assert animals.count({"legs": 2}) == await animals.acount({"legs": 2}) == 3


async def test_metadata_changes_without_the_document(animals: MuveraVectorStore) -> None:
    assert animals.update_metadata("owl", {"legs": 3}) == 1
    assert await animals.aupdate_metadata(["ant", "nobody"], [{"seen": True}, {}], replace=True) == 1
    owl, ant = animals.get_by_ids(["owl", "ant"])
    assert owl.metadata == {"legs": 3, "habit": {"active": "night"}}
    assert (ant.metadata, ant.page_content) == ({"seen": True}, "Ants live in colonies.")
    assert ids_of(animals.similarity_search(NOCTURNAL, filter={"legs": 3})) == ["owl"]


def test_what_is_there_already_is_not_encoded_again(encoder: BundledEncoder) -> None:
    class Counting(BundledEncoder):
        n_encoded = 0

        def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
            self.n_encoded += len(texts)
            return super().encode_documents(texts)

    counting = Counting()
    with MuveraVectorStore.from_documents(ANIMALS, encoder=counting) as store:
        store.add_documents(ANIMALS)
        store.add_documents([ANIMALS[0].model_copy(update={"metadata": {}})])
        assert counting.n_encoded == len(ANIMALS)
        assert store.get_by_ids(["owl"])[0].metadata == {}
        store.add_documents(ANIMALS, force=True)
        assert counting.n_encoded == 2 * len(ANIMALS)


async def test_delete_in_async_follows_the_same_rules(animals: MuveraVectorStore) -> None:
    await animals.adelete(filter={"legs": {"$gt": 2}})
    assert len(animals.index) == 4
    await animals.adelete()
    assert len(animals.index) == 0


# Searching


def test_scores_are_relevance_scores_and_fall(animals: MuveraVectorStore) -> None:
    found = animals.similarity_search_with_score(NOCTURNAL, k=5)
    scores = [score for _, score in found]
    assert found[0][0] == ANIMALS[0]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert found == animals.similarity_search_with_relevance_scores(NOCTURNAL, k=5)
    hits = animals.index.search(NOCTURNAL, k=5)
    assert scores == [hit.normalized_score for hit in hits]
    assert animals.similarity_search_with_score("Sharks smell blood from afar.", k=1)[0][1] > 0.99


async def test_a_smallest_score_keeps_what_reaches_it(animals: MuveraVectorStore) -> None:
    found = animals.similarity_search_with_score(NOCTURNAL, k=5)
    threshold = found[1][1]
    assert animals.similarity_search_with_relevance_scores(NOCTURNAL, k=5, score_threshold=threshold) == found[:2]
    assert animals.similarity_search_with_score(NOCTURNAL, k=5, min_score=threshold) == found[:2]
    assert animals.similarity_search(NOCTURNAL, k=5, min_score=threshold) == [document for document, _ in found[:2]]
    assert animals.max_marginal_relevance_search(NOCTURNAL, lambda_mult=1, min_score=threshold) == [
        document for document, _ in found[:2]
    ]
    assert await animals.asimilarity_search_with_relevance_scores(NOCTURNAL, score_threshold=threshold) == found[:2]
    assert animals.similarity_search(NOCTURNAL, min_score=1.0) == []


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"legs": 2}, ["bat", "heron", "owl"]),
        ({"legs": {"$gte": 2, "$lt": 6}, "tags": {"$exists": True}}, ["bat"]),
        ({"habit.active": "night"}, ["owl"]),
        ({"$or": [{"legs": 6}, {"habit.active": {"$like": "da%"}}]}, ["ant", "heron"]),
        ({"legs": {"$nin": [2, 6]}}, ["shark"]),
        ({"$not": {"tags": "small"}, "legs": {"$ne": 0}}, ["heron", "owl"]),
        ({"tags": {"$all": ["small", "social"]}}, ["ant"]),
        ({"legs": 7}, []),
        ({}, ["ant", "bat", "heron", "owl", "shark"]),
    ],
)
def test_filters_admit_exactly_what_satisfies_them(
    animals: MuveraVectorStore, filter: dict[str, Any], expected: list[str]
) -> None:
    assert sorted(map(str, ids_of(animals.similarity_search(NOCTURNAL, k=9, filter=filter)))) == expected
    assert sorted(map(str, ids_of(animals.max_marginal_relevance_search(NOCTURNAL, k=9, filter=filter)))) == expected


@pytest.mark.parametrize("filter", [{"legs": {"$near": 2}}, {"legs": {"$in": 2}}, {"$or": []}, ["legs"]])
async def test_filters_that_cannot_be_are_refused(animals: MuveraVectorStore, filter: Any) -> None:
    with pytest.raises(InvalidInputError):
        animals.similarity_search(NOCTURNAL, filter=filter)
    with pytest.raises(InvalidInputError):
        await animals.asimilarity_search_with_score(NOCTURNAL, filter=filter)
    with pytest.raises(InvalidInputError):
        animals.delete(filter=filter)
    assert len(animals.index) == len(ANIMALS)


def test_marginal_relevance_passes_over_a_near_copy(encoder: BundledEncoder) -> None:
    texts = ["Owls hunt mice at night.", "Owls hunt mice at night!", "Moths fly to the light at night."]
    with MuveraVectorStore.from_texts(texts, ids=["owl", "copy", "moth"], encoder=encoder) as store:
        question = "What do owls hunt at night?"
        assert set(ids_of(store.similarity_search(question, k=2))) == {"owl", "copy"}
        diverse = ids_of(store.max_marginal_relevance_search(question, k=2, lambda_mult=0.3))
        assert diverse[1] == "moth"
        plain = store.max_marginal_relevance_search(question, k=2, lambda_mult=1)
        assert plain == store.similarity_search(question, k=2)
        assert len(store.max_marginal_relevance_search(question, k=3, fetch_k=1)) == 3
        assert "moth" not in ids_of(store.max_marginal_relevance_search(question, k=2, fetch_k=2, lambda_mult=0.3))


@pytest.mark.parametrize("k", [1, 3, 5, 50])
async def test_k_results_come_while_k_exist(animals: MuveraVectorStore, k: int) -> None:
    expected = min(k, len(ANIMALS))
    assert len(animals.similarity_search(NOCTURNAL, k=k, n_candidates=1)) == expected
    assert len(await animals.asimilarity_search(NOCTURNAL, k=k)) == expected
    assert len(await animals.amax_marginal_relevance_search(NOCTURNAL, k=k)) == expected
    assert animals.similarity_search(NOCTURNAL, k, exact=True) == animals.similarity_search(NOCTURNAL, k)


def test_what_cannot_be_searched_is_refused(animals: MuveraVectorStore) -> None:
    with pytest.raises(InvalidInputError, match="k must be"):
        animals.similarity_search(NOCTURNAL, k=0)
    with pytest.raises(InvalidInputError, match="between 0 and 1"):
        animals.max_marginal_relevance_search(NOCTURNAL, lambda_mult=2)
    for search in (animals.similarity_search, animals.max_marginal_relevance_search):
        with pytest.raises(InvalidInputError, match="does not know 'filters'"):
            search(NOCTURNAL, filters={"legs": 2})
    for share in (True, "0.5", float("nan")):
        with pytest.raises(InvalidInputError, match="lambda_mult must be"):
            animals.max_marginal_relevance_search(NOCTURNAL, lambda_mult=share)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="with the query's text"):
        animals.max_marginal_relevance_search_by_vector([0.1] * 128)


async def test_only_documents_with_the_given_ids_are_found(animals: MuveraVectorStore) -> None:
    ids = ["ant", "nobody", "bat"]
    best = [document for document in animals.similarity_search(NOCTURNAL, k=9) if document.id in ids]
    assert animals.similarity_search(NOCTURNAL, ids=ids) == best
    assert await animals.asimilarity_search(NOCTURNAL, ids=ids) == best
    assert [document for document, _ in animals.similarity_search_with_score(NOCTURNAL, ids=ids)] == best
    assert animals.max_marginal_relevance_search(NOCTURNAL, lambda_mult=1, ids=ids) == best
    assert animals.as_retriever(search_kwargs={"ids": ids, "filter": {"legs": 6}}).invoke(NOCTURNAL) == [
        animals.get_by_ids(["ant"])[0]
    ]
    assert animals.rerank(NOCTURNAL, ids) == await animals.arerank(NOCTURNAL, ids) == best
    assert animals.rerank(NOCTURNAL, ids, k=1) == best[:1]
    assert animals.rerank(NOCTURNAL, ids, min_score=1) == []


async def test_a_vector_of_its_own_encoding_finds_a_rough_order(
    animals: MuveraVectorStore, encoder: BundledEncoder
) -> None:
    vector = MuveraEmbeddings(encoder).embed_query(NOCTURNAL)
    found = animals.similarity_search_by_vector(vector, k=3)
    assert "owl" in ids_of(found)
    assert await animals.asimilarity_search_by_vector(vector, k=3) == found
    scored = animals.similarity_search_with_score_by_vector(vector, k=3)
    assert [document for document, _ in scored] == found
    assert [score for _, score in scored] == sorted((score for _, score in scored), reverse=True)
    assert await animals.asimilarity_search_with_score_by_vector(vector, k=3) == scored
    two_legs = animals.similarity_search_by_vector(vector, k=9, filter={"legs": 2}, ids=["owl", "bat", "ant"])
    assert sorted(map(str, ids_of(two_legs))) == ["bat", "owl"]


def test_a_vector_of_another_encoding_is_refused(animals: MuveraVectorStore, encoder: BundledEncoder) -> None:
    other = MuveraEmbeddings(encoder, FDEConfig(num_repetitions=2)).embed_query(NOCTURNAL)
    for vector in ([0.1] * 128, other, [], [[0.1] * 128]):
        with pytest.raises(InvalidInputError):
            animals.similarity_search_by_vector(vector)  # type: ignore[arg-type]
    vector = MuveraEmbeddings(encoder).embed_query(NOCTURNAL)
    centred = MuveraVectorStore.from_documents(ANIMALS, encoder=encoder, fde=FDEConfig(center=True))
    with centred, pytest.raises(InvalidInputError, match="centred"):
        centred.similarity_search_by_vector(vector)


# As a retriever


async def test_it_retrieves_by_similarity_threshold_and_marginal_relevance(animals: MuveraVectorStore) -> None:
    similar = animals.as_retriever(search_kwargs={"k": 2, "filter": {"legs": 2}})
    assert similar.invoke(NOCTURNAL) == animals.similarity_search(NOCTURNAL, k=2, filter={"legs": 2})
    assert len(await similar.ainvoke(NOCTURNAL, k=1)) == 1
    assert similar.tags == ["MuveraVectorStore"]
    diverse = animals.as_retriever(search_type="mmr", search_kwargs={"k": 3, "fetch_k": 4, "lambda_mult": 0.2})
    expected = animals.max_marginal_relevance_search(NOCTURNAL, k=3, fetch_k=4, lambda_mult=0.2)
    assert diverse.invoke(NOCTURNAL) == await diverse.ainvoke(NOCTURNAL) == expected
    best = animals.similarity_search_with_score(NOCTURNAL, k=1)[0]
    relevant = animals.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": best[1], "k": 4}
    )
    assert relevant.invoke(NOCTURNAL) == await relevant.ainvoke(NOCTURNAL) == [best[0]]


@pytest.mark.parametrize("open_store", [MuveraVectorStore.load, MuveraVectorStore.open_or_create])
def test_opened_without_an_encoder_an_index_keeps_its_dimension(open_store: Any, tmp_path: Path) -> None:
    MuveraVectorStore.from_texts(
        ["Owls hunt at night."], path=tmp_path / "index", encoder=BundledEncoder(dimension=64)
    ).close()
    with open_store(tmp_path / "index") as store:
        assert store.index.encoder.dimension == 64

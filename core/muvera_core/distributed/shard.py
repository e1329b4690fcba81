"""What a shard answers: an ordinary index, with the calls that its part of a larger index needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from muvera_core.batches import batched
from muvera_core.collection import EncodedTexts, Record, compare
from muvera_core.distributed.merging import ShardAnswer
from muvera_core.errors import StorageError
from muvera_core.filters import Condition
from muvera_core.hits import Document, Hit, Passage, TokenMatch
from muvera_core.index import MuveraIndex
from muvera_core.lexical import LexicalConfig
from muvera_core.search import (
    Features,
    HitFeatures,
    Question,
    SearchOptions,
    SearchPlan,
    StageClock,
    add_passages,
    calibration_for,
    n_competing,
    n_ranked,
    nearest_documents,
    score,
    stage_one_vectors,
    words_of,
)
from muvera_core.set_encoders import LearnedSetEncoder
from muvera_core.stage_one import Tuning
from muvera_core.storage import LearnedSettings, Manifest, Snapshot, StoredDocument, WordStatistics
from muvera_core.token_embeddings import FloatArray, TokenEmbeddings
from muvera_core.tuning import (
    MADE_SEED,
    Corpus,
    MadeQuestion,
    Queries,
    make_questions,
    measure_encoder,
    narrow_tokens,
)

_T = TypeVar("_T")
# Documents whose tokens are stored together.
_STORED_TOGETHER = 256


@dataclass(frozen=True, eq=False)
class _TokensOfPlaces:
    """Fulfils ``TokenSource``."""

    tokens: Mapping[int, FloatArray]

    def batches(self, places: Sequence[int]) -> Iterator[tuple[Sequence[int], TokenEmbeddings]]:
        for batch in batched(places, _STORED_TOGETHER):
            missing = [place for place in batch if place not in self.tokens]
            if missing:
                raise StorageError("documents were changed by another call while these were encoded: add them again")
            yield batch, TokenEmbeddings.from_list([self.tokens[place] for place in batch])


class Shard:
    """One shard of an index. It may live in another process, so arguments and results can be pickled."""

    def __init__(self, index: MuveraIndex) -> None:
        self.index, self._engine = index, index.engine
        self._collection = index.engine.collection

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method by its name."""
        return getattr(self, name)(*arguments)

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    def _read(self, read: Callable[[Snapshot], _T]) -> _T:
        self._engine.start_reading()
        return self._collection.read_with_retry(read)

    # Searching

    def word_statistics(self, questions: Sequence[Question]) -> list[WordStatistics]:
        """What BM25 knows of this shard, for each question."""
        store = self._collection.store
        return self._read(
            lambda snapshot: [store.word_statistics(snapshot, words_of(snapshot, each)) for each in questions]
        )

    def answer(
        self,
        questions: Sequence[Question],
        options: SearchOptions,
        whole: Sequence[WordStatistics] | None,
        of_common: bool | None,
    ) -> ShardAnswer:
        """Score this shard's documents for each question. See ``muvera_core.search.score``."""
        clock, collection = StageClock(), self._collection

        def read(_: Snapshot) -> ShardAnswer:
            learned = collection.learned
            k = n_ranked(options.k, calibration_for(learned, options))
            moment, scored = score(collection, questions, options, k, clock, whole=whole, of_common=of_common)
            documents: dict[int, StoredDocument] = {}
            if options.mode != "hybrid":
                with clock.stage("fetch"):
                    keys = np.unique(np.concatenate([each.keys[: options.k] for each in scored]))
                    found = collection.store.documents(moment.snapshot, keys)
                    documents = {document.key: document for document in found}
            return ShardAnswer(n_competing(moment.plan, options), learned, scored, documents, clock.seconds)

        return self._read(read)

    def documents(self, keys: Sequence[int]) -> dict[int, StoredDocument]:
        """The documents that still have these keys, by key."""

        def read(snapshot: Snapshot) -> dict[int, StoredDocument]:
            present = np.array(keys, dtype=np.int64)
            present = present[snapshot.has(present)]
            return {document.key: document for document in self._collection.store.documents(snapshot, present)}

        return self._read(read)

    def passages(self, asked: Sequence[tuple[FloatArray, Sequence[str]]]) -> list[dict[str, Passage | None]]:
        """For each query's tokens the passages of documents, by id. Documents that are gone are left out."""

        def read(snapshot: Snapshot) -> list[dict[str, Passage | None]]:
            store, queries = self._collection.store, [tokens for tokens, _ in asked]
            hits = [
                [Hit(document.id, document.text, **document.image_fields) for document in found]
                for found in (store.documents_by_id(snapshot, ids) for _, ids in asked)
            ]
            found_passages = add_passages(self._collection, self.index.encoder, snapshot, queries, hits)
            return [{hit.id: hit.passage for hit in of_query} for of_query in found_passages]

        return self._read(read)

    def without_question(self, options: SearchOptions) -> list[Hit]:
        """See ``Engine``."""
        self._engine.start_reading()
        return self._engine.without_question(options)

    def features(self, ids: Sequence[str], query_tokens: FloatArray) -> HitFeatures:
        """See ``Engine``."""
        self._engine.start_reading()
        return self._engine.features(ids, query_tokens)

    def stage_one_vectors(self, ids: Sequence[str]) -> FloatArray:
        """Stage-one vectors of the documents that are there."""
        self._engine.start_reading()
        return stage_one_vectors(self._collection, ids)

    def nearest(self, vectors: FloatArray, options: SearchOptions, n: int) -> list[str]:
        """Ids of the documents that are nearest to each stage-one vector."""
        self._engine.start_reading()
        return nearest_documents(self._collection, vectors, options, n)

    def candidates(self, query_tokens: FloatArray, options: SearchOptions) -> tuple[list[Hit], Features | None]:
        """Candidates for a cross-encoder, by falling MaxSim, and their features. None if there are no candidates."""
        self._engine.start_reading()
        return self._engine.candidates(query_tokens, options, 0, StageClock())

    def search_by_vector(self, vector: Any, options: SearchOptions) -> list[Hit]:
        """See ``Engine``."""
        self._engine.start_reading()
        return self._engine.search_by_vector(vector, options)

    def plan(self, options: SearchOptions) -> SearchPlan:
        """See ``Engine``."""
        self._engine.start_reading()
        return self._engine.plan(options)

    def explain(self, query: str, id: str) -> list[TokenMatch]:
        """See ``Engine``."""
        self._engine.start_reading()
        return self._engine.explain(query, id)

    def similarity_maps(self, query: str, id: str) -> FloatArray:
        """See ``Engine``."""
        self._engine.start_reading()
        return self._engine.similarity_maps(query, id)

    def image(self, id: str) -> Any:
        """See ``Engine``."""
        self._engine.start_reading()
        return self._engine.image(id)

    # Reading

    def get(self, ids: Sequence[str]) -> list[Document]:
        """See ``Engine``."""
        self._engine.start_reading()
        return self._engine.get(ids)

    def get_embeddings(self, ids: Sequence[str]) -> dict[str, FloatArray]:
        """See ``Engine``."""
        self._engine.start_reading()
        return self._engine.get_embeddings(ids)

    def find(self, condition: Condition | None, start: int, end: int | None) -> list[Document]:
        """See ``Engine``."""
        self._engine.start_reading()
        return self._engine.find(condition, start, end)

    def page(self, condition: Condition | None, last: int, n: int) -> list[StoredDocument]:
        """See ``CollectionEngine``."""
        self._engine.start_reading()
        return self._engine.page(condition, last, n)

    def count(self, condition: Condition | None) -> int:
        """See ``Engine``."""
        self._engine.start_reading()
        return self._engine.count(condition)

    def contains(self, id: str) -> bool:
        """See ``Engine``."""
        self._engine.start_reading()
        return self._engine.contains(id)

    def n_documents_and_tokens(self) -> tuple[int, int]:
        """The number of documents and of their token vectors."""
        return self._read(lambda snapshot: (len(snapshot), snapshot.n_tokens))

    # Writing

    def add_texts(self, records: Sequence[Record], batch_size: int, skip_unchanged: bool) -> None:
        """Encode and add documents, all or none."""
        tokens = EncodedTexts(
            self.index.encoder, records, self._collection.manifest.reduction, batch_size, show_progress=False
        )
        self._engine.add(records, tokens, skip_unchanged=skip_unchanged)

    def places_to_encode(self, records: Sequence[Record]) -> list[int]:
        """The places of the documents whose tokens are not stored."""
        return self._read(lambda snapshot: compare(self._collection.store, snapshot, records).new)

    def add_tokens(self, records: Sequence[Record], tokens: Mapping[int, FloatArray], skip_unchanged: bool) -> None:
        """Add documents by their tokens, all or none.

        Args:
            records: the documents.
            tokens: token vectors by the document's place. If ``skip_unchanged``, those of documents whose tokens are
                stored may be missing.
            skip_unchanged: see ``Writer.add``.
        """
        self._engine.add(records, _TokensOfPlaces(tokens), skip_unchanged=skip_unchanged)

    def update_metadata(self, metadatas: Mapping[str, Mapping[str, Any]], replace: bool) -> int:
        """See ``Engine``."""
        return self._engine.update_metadata(metadatas, replace=replace)

    def delete(self, ids: Sequence[str] | None, condition: Condition | None) -> int:
        """See ``Engine``."""
        return self._engine.delete(ids, condition)

    # Keeping

    def manifest(self) -> Manifest:
        """The settings."""
        return self._collection.manifest

    def learned(self) -> LearnedSettings:
        """What was learned about scores."""
        self._engine.start_reading()
        return self._collection.learned

    def device(self) -> str:
        """The device that searches use."""
        return self._engine.device

    def refresh(self) -> bool:
        """See ``Engine``."""
        return self._engine.refresh()

    def compact(self) -> int:
        """See ``Engine``."""
        return self._engine.compact()

    def set_lexical(self, lexical: LexicalConfig | None) -> None:
        """See ``Engine``."""
        self._engine.set_lexical(lexical)

    def default_candidates(self, k: int) -> int:
        """See ``Engine``."""
        self._engine.start_reading()
        return self._engine.default_candidates(k)

    def sizes(self) -> dict[str, int]:
        """See ``Engine``."""
        self._engine.start_reading()
        return self._engine.sizes()

    # Tuning

    def sample(self, n: int) -> list[tuple[Record, FloatArray]]:
        """``n`` documents that are drawn at random, with their token vectors. All if there are no more."""

        def read(snapshot: Snapshot) -> list[tuple[Record, FloatArray]]:
            drawn = np.sort(np.random.default_rng(0).permutation(snapshot.keys)[:n])
            documents = self._collection.store.documents(snapshot, drawn)
            tokens = self._collection.store.embeddings(snapshot, drawn)
            return [(Record(each.id, each.text, "{}"), tokens[i]) for i, each in enumerate(documents)]

        return self._read(read)

    def made_questions(self, n: int, with_texts: bool) -> list[MadeQuestion]:
        """``n`` questions that are made of documents. None if there are no documents."""
        encoder = self.index.encoder if with_texts else None
        return self._read(
            lambda snapshot: (
                make_questions(Corpus(self._collection, snapshot, encoder), n, MADE_SEED) if len(snapshot) else []
            )
        )

    def known(self, ids: Sequence[str]) -> set[str]:
        """The ids that documents have."""
        return self._read(lambda snapshot: set(self._collection.store.keys_of(snapshot, ids)))

    def narrow_tokens(self, max_bytes: int) -> None:
        """See ``max_bytes_per_token`` of ``optimize``."""
        narrow_tokens(self._collection, self._engine.writer, max_bytes)

    def adopt_encoder(
        self, encoder: LearnedSetEncoder | None, queries: Queries, made_of: Sequence[str], target_recall: float, k: int
    ) -> Tuning | None:
        """Encode the documents for stage one by an encoder that was learned elsewhere, and use it from now on.

        Args:
            encoder: the encoder. None takes the index's first one.
            queries: to measure with how many candidates the target is reached.
            made_of: id of the document that each query was made of. Empty if users asked the queries.
            target_recall: the share of exact MaxSim's ``k`` best documents of this shard to find.
            k: number of hits to tune for.

        Returns:
            What was chosen. None if there are at most ``k`` documents, which need no tuning.
        """
        collection, start = self._collection, time.perf_counter()
        with collection.locks.writing:
            collection.require_writable()
            corpus = Corpus(collection, collection.snapshot(), None)
            if len(corpus.keys) <= k:
                return None
            if made_of:
                keys = collection.store.keys_of(corpus.snapshot, list(dict.fromkeys(made_of)))
                queries = replace(queries, made_of=np.array([keys.get(id, -1) for id in made_of], dtype=np.int64))
            first = collection.stage_one_source.first_encoder(collection.manifest.fde)
            choice = measure_encoder(
                corpus, encoder or first, queries, target_recall=target_recall, k=k, show_progress=False
            )
            spent = time.perf_counter() - start
            tuning = choice.as_tuning(k, target_recall, len(queries.tokens), spent)
            return self._engine.writer.adopt(choice.encoder, choice.candidates, tuning)

    def learn(self, learned: LearnedSettings) -> None:
        """Replace what was learned about scores, durably."""
        with self._collection.locks.writing:
            self._collection.require_writable()
            self._engine.writer.learn(learned)

    def remove_calibration(self) -> bool:
        """See ``Engine``."""
        return self._engine.remove_calibration()

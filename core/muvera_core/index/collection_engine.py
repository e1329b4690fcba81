"""The engine of an index in this process: one collection, and its writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from muvera_core.calibration import CalibrationReport
from muvera_core.collection import AutoRefresh, Collection, Record, TokenSource, Writer, copy_collection, refresh
from muvera_core.encoders import TokenEncoder
from muvera_core.filters import Condition
from muvera_core.hits import Document, DocumentPage, Hit, TokenMatch
from muvera_core.index.engine import Judged, page_place
from muvera_core.lexical import LexicalConfig
from muvera_core.search import (
    Features,
    HitFeatures,
    Question,
    SearchMode,
    SearchOptions,
    SearchPlan,
    StageClock,
    candidates_to_judge,
    explain,
    features_of,
    make_plan,
    neighbors_of,
    read_document,
    read_image,
    search,
    search_by_vector,
    similarity_maps,
    without_question,
)
from muvera_core.stage_one import Tuning
from muvera_core.storage import LearnedSettings, Manifest, Snapshot, StoredDocument
from muvera_core.token_embeddings import FloatArray
from muvera_core.tuning import calibrate, choose_lexical_weight, optimize, remove_calibration

if TYPE_CHECKING:
    from PIL.Image import Image


class CollectionEngine:
    """Fulfils ``Engine``."""

    def __init__(self, collection: Collection, encoder: TokenEncoder, refresh_interval: float | None) -> None:
        """Search and change a collection.

        Args:
            collection: the open documents and stage one.
            encoder: the collection's token encoder.
            refresh_interval: see ``MuveraIndex.open``.
        """
        self.collection, self.writer, self._encoder = collection, Writer(collection), encoder
        self._auto_refresh = AutoRefresh(collection, refresh_interval)

    @property
    def manifest(self) -> Manifest:
        """See ``Engine``."""
        return self.collection.manifest

    @property
    def path(self) -> Path | None:
        """See ``Engine``."""
        return self.collection.folder

    @property
    def device(self) -> str:
        """See ``Engine``."""
        return self.collection.device

    @property
    def learned(self) -> LearnedSettings:
        """See ``Engine``."""
        return self.collection.learned

    @property
    def is_open(self) -> bool:
        """See ``Engine``."""
        return self.collection.is_open

    def require_open(self) -> None:
        """See ``Engine``."""
        self.collection.require_open()

    def require_writable(self) -> None:
        """See ``Engine``."""
        self.collection.require_writable()

    def start_reading(self) -> None:
        """See ``Engine``."""
        self.collection.require_open()
        self._auto_refresh.refresh_if_due()

    def close(self) -> None:
        """See ``Engine``."""
        self.collection.close()

    # Searching

    def search(self, questions: Sequence[Question], options: SearchOptions, clock: StageClock) -> list[list[Hit]]:
        """See ``Engine``."""
        return search(self.collection, questions, options, clock, self._encoder)

    def without_question(self, options: SearchOptions) -> list[Hit]:
        """See ``Engine``."""
        return without_question(self.collection, options)

    def features(self, ids: Sequence[str], query_tokens: FloatArray) -> HitFeatures:
        """See ``Engine``."""
        return features_of(self.collection, ids, query_tokens)

    def neighbors(self, ids: Sequence[str], options: SearchOptions, n: int) -> list[str]:
        """See ``Engine``."""
        return neighbors_of(self.collection, ids, options, n)

    def candidates(
        self, query_tokens: FloatArray, options: SearchOptions, n_judged: int, clock: StageClock
    ) -> tuple[list[Hit], Features | None]:
        """See ``Engine``."""
        return candidates_to_judge(self.collection, query_tokens, options, n_judged, clock)

    def search_by_vector(self, vector: Any, options: SearchOptions) -> list[Hit]:
        """See ``Engine``."""
        return search_by_vector(self.collection, vector, options)

    def plan(self, options: SearchOptions) -> SearchPlan:
        """See ``Engine``."""
        return make_plan(self.collection, options)

    def explain(self, query: str, id: str) -> list[TokenMatch]:
        """See ``Engine``."""
        return explain(self.collection, self._encoder, query, id)

    def similarity_maps(self, query: str, id: str) -> FloatArray:
        """See ``Engine``."""
        return similarity_maps(self.collection, self._encoder, query, id)

    def image(self, id: str) -> Image:
        """See ``Engine``."""
        return read_image(read_document(self.collection, id)[0])

    # Reading

    def get(self, ids: Sequence[str]) -> list[Document]:
        """See ``Engine``."""
        store = self.collection.store
        found = self.collection.read_with_retry(lambda snapshot: store.documents_by_id(snapshot, ids))
        return [to_document(document) for document in found]

    def get_embeddings(self, ids: Sequence[str]) -> dict[str, FloatArray]:
        """See ``Engine``."""
        store = self.collection.store

        def read(snapshot: Snapshot) -> dict[str, FloatArray]:
            keys = store.keys_of(snapshot, ids)
            found = [id for id in dict.fromkeys(ids) if id in keys]
            return dict(zip(found, store.embeddings(snapshot, [keys[id] for id in found]), strict=True))

        return self.collection.read_with_retry(read)

    def find(self, condition: Condition | None, start: int, end: int | None) -> list[Document]:
        """See ``Engine``."""
        store = self.collection.store

        def read(snapshot: Snapshot) -> list[StoredDocument]:
            return store.documents(snapshot, store.matching(snapshot, condition)[start:end])

        return [to_document(document) for document in self.collection.read_with_retry(read)]

    def page(self, condition: Condition | None, last: int, n: int) -> list[StoredDocument]:
        """The first ``n`` documents that a filter admits and whose key is above ``last``, by rising key."""
        store = self.collection.store

        def read(snapshot: Snapshot) -> list[StoredDocument]:
            keys = store.matching(snapshot, condition)
            start = np.searchsorted(keys, last, "right")
            return store.documents(snapshot, keys[start : start + n])

        return self.collection.read_with_retry(read)

    def page_after(self, condition: Condition | None, after: str | None, n: int) -> DocumentPage:
        """See ``Engine``. A page is asked for with the key of the last document of the page before."""
        (last,) = page_place(after, 1) if after is not None else (-1,)
        page = self.page(condition, last, n)
        return DocumentPage(list(map(to_document, page)), str(page[-1].key) if len(page) == n else None)

    def count(self, condition: Condition | None) -> int:
        """See ``Engine``."""
        store = self.collection.store
        return len(self.collection.read_with_retry(lambda snapshot: store.matching(snapshot, condition)))

    def contains(self, id: str) -> bool:
        """See ``Engine``."""
        store = self.collection.store
        return self.collection.read_with_retry(lambda snapshot: id in store.keys_of(snapshot, [id]))

    @property
    def n_documents(self) -> int:
        """See ``Engine``."""
        return len(self.collection.snapshot())

    @property
    def n_tokens(self) -> int:
        """See ``Engine``."""
        return self.collection.snapshot().n_tokens

    # Writing

    def add(self, records: Sequence[Record], tokens: TokenSource, *, skip_unchanged: bool) -> None:
        """See ``Engine``."""
        self.writer.add(records, tokens, skip_unchanged=skip_unchanged)

    def update_metadata(self, metadatas: Mapping[str, Mapping[str, Any]], *, replace: bool) -> int:
        """See ``Engine``."""
        return self.writer.update_metadata(metadatas, replace=replace)

    def delete(self, ids: Sequence[str] | None, condition: Condition | None) -> int:
        """See ``Engine``."""
        return self.writer.delete(ids, condition)

    # Keeping

    def refresh(self) -> bool:
        """See ``Engine``."""
        return refresh(self.collection)

    def compact(self) -> int:
        """See ``Engine``."""
        return self.writer.compact()

    def copy_to(self, path: Path) -> None:
        """See ``Engine``."""
        copy_collection(self.collection, path)

    def set_lexical(self, lexical: LexicalConfig | None) -> None:
        """See ``Engine``."""
        self.writer.set_lexical(lexical)

    def default_candidates(self, k: int) -> int:
        """See ``Engine``."""
        return self.collection.stage_one.n_candidates(k)

    def sizes(self) -> dict[str, int]:
        """See ``Engine``."""
        return self.collection.sizes()

    def write_note(self, name: str, note: Mapping[str, Any] | None) -> None:
        """See ``Engine``."""
        with self.collection.locks.writing:
            self.collection.require_writable()
            noted = self.collection.learned.with_note(name, note)
            if noted != self.collection.learned:
                self.writer.learn(noted)

    # Tuning

    def optimize(
        self,
        questions: Sequence[FloatArray] | None,
        encoder: TokenEncoder | None,
        *,
        target_recall: float,
        k: int,
        n_queries: int,
        max_bytes_per_token: int | None,
        show_progress: bool,
    ) -> Tuning:
        """See ``Engine``."""
        return optimize(
            self.collection,
            self.writer,
            questions,
            encoder,
            target_recall=target_recall,
            k=k,
            n_queries=n_queries,
            max_bytes_per_token=max_bytes_per_token,
            show_progress=show_progress,
        )

    def choose_lexical_weight(self, judged: Judged, k: int, *, show_progress: bool) -> dict[str, float]:
        """See ``Engine``."""
        return choose_lexical_weight(self.collection, self.writer, judged, k, show_progress=show_progress)

    def calibrate(
        self,
        encoder: TokenEncoder | None,
        judged: Sequence[tuple[Question, AbstractSet[str]]],
        *,
        mode: SearchMode,
        n_queries: int,
        show_progress: bool,
    ) -> CalibrationReport:
        """See ``Engine``."""
        return calibrate(
            self.collection,
            self.writer,
            encoder,
            judged,
            mode=mode,
            n_queries=n_queries,
            show_progress=show_progress,
        )

    def remove_calibration(self) -> bool:
        """See ``Engine``."""
        return remove_calibration(self.collection, self.writer)


def to_document(document: StoredDocument) -> Document:
    """A stored document as users see it."""
    return Document(document.id, document.text, document.metadata, **document.image_fields)

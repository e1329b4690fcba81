"""What the calls of an index are built on: its documents, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from muvera_core.calibration import CalibrationReport
from muvera_core.collection import Record, TokenSource
from muvera_core.encoders import TokenEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.filters import Condition
from muvera_core.hits import Document, DocumentPage, Hit, TokenMatch
from muvera_core.lexical import LexicalConfig
from muvera_core.search import (
    Features,
    HitFeatures,
    Question,
    SearchMode,
    SearchOptions,
    SearchPlan,
    StageClock,
)
from muvera_core.stage_one import Tuning
from muvera_core.storage import LearnedSettings, Manifest
from muvera_core.token_embeddings import FloatArray
from muvera_core.validation import shown

if TYPE_CHECKING:
    from PIL.Image import Image

# Keys are at most so large.
_MAX_KEY = (1 << 63) - 1
Judged = Sequence[tuple[Question, Mapping[str, float]]]


class Engine(Protocol):
    """Documents that can be searched, read and changed. Arguments are checked by the calls of the index.

    ``MuveraIndex`` has a ``CollectionEngine``: one folder, or memory, in this process. Methods that are named like a
    call of the index do what that call says, and raise what it says.
    """

    @property
    def manifest(self) -> Manifest:
        """The index's settings."""

    @property
    def path(self) -> Path | None:
        """The index's folder. None if it is in memory."""

    @property
    def device(self) -> str:
        """The device that searches use."""

    @property
    def learned(self) -> LearnedSettings:
        """What was learned about scores."""

    @property
    def is_open(self) -> bool:
        """Whether the index can be used."""

    def require_open(self) -> None:
        """Raise IndexClosedError or ForkedIndexError unless the index can be used."""

    def require_writable(self) -> None:
        """Raise ReadOnlyIndexError, or an error of ``require_open``, unless the index can be changed."""

    def start_reading(self) -> None:
        """Get ready for a call that reads: what other processes have committed may have to be taken in."""

    def close(self) -> None:
        """See ``IndexCalls.close``."""

    # Searching

    def search(self, questions: Sequence[Question], options: SearchOptions, clock: StageClock) -> list[list[Hit]]:
        """The hits of each question, best first."""

    def without_question(self, options: SearchOptions) -> list[Hit]:
        """The hits of a query without a visible character: what a filter or ids admit, with a score of 0."""

    def features(self, ids: Sequence[str], query_tokens: FloatArray) -> HitFeatures:
        """What a diverse choice among documents looks at. Documents that are gone are left out."""

    def neighbors(self, ids: Sequence[str], options: SearchOptions, n: int) -> list[str]:
        """Ids of the documents whose stage-one vectors are nearest to those of these documents, ``n`` for each."""

    def candidates(
        self, query_tokens: FloatArray, options: SearchOptions, n_judged: int, clock: StageClock
    ) -> tuple[list[Hit], Features | None]:
        """Candidates with a text for a cross-encoder, by falling MaxSim; and their features, unless all are judged."""

    def search_by_vector(self, vector: Any, options: SearchOptions) -> list[Hit]:
        """See ``IndexCalls``."""

    def plan(self, options: SearchOptions) -> SearchPlan:
        """See ``IndexCalls``."""

    def explain(self, query: str, id: str) -> list[TokenMatch]:
        """See ``IndexCalls``."""

    def similarity_maps(self, query: str, id: str) -> FloatArray:
        """See ``IndexCalls``."""

    def image(self, id: str) -> Image:
        """The image of a document."""

    # Reading

    def get(self, ids: Sequence[str]) -> list[Document]:
        """See ``IndexCalls``."""

    def get_embeddings(self, ids: Sequence[str]) -> dict[str, FloatArray]:
        """See ``IndexCalls``."""

    def find(self, condition: Condition | None, start: int, end: int | None) -> list[Document]:
        """The documents that a filter admits, from the place ``start`` up to ``end``."""

    def page_after(self, condition: Condition | None, after: str | None, n: int) -> DocumentPage:
        """See ``IndexCalls.page``."""

    def count(self, condition: Condition | None) -> int:
        """See ``IndexCalls``."""

    def contains(self, id: str) -> bool:
        """Whether there is a document with this id."""

    @property
    def n_documents(self) -> int:
        """The number of documents."""

    @property
    def n_tokens(self) -> int:
        """See ``IndexCalls``."""

    # Writing

    def add(self, records: Sequence[Record], tokens: TokenSource, *, skip_unchanged: bool) -> None:
        """See ``Writer.add``."""

    def update_metadata(self, metadatas: Mapping[str, Mapping[str, Any]], *, replace: bool) -> int:
        """See ``Writer.update_metadata``."""

    def delete(self, ids: Sequence[str] | None, condition: Condition | None) -> int:
        """See ``Writer.delete``."""

    # Keeping

    def refresh(self) -> bool:
        """See ``IndexCalls``."""

    def compact(self) -> int:
        """See ``IndexCalls``."""

    def copy_to(self, path: Path) -> None:
        """See ``IndexCalls``."""

    def set_lexical(self, lexical: LexicalConfig | None) -> None:
        """See ``IndexCalls``."""

    def default_candidates(self, k: int) -> int:
        """See ``IndexCalls``."""

    def sizes(self) -> dict[str, int]:
        """See ``IndexCalls``."""

    def write_note(self, name: str, note: Mapping[str, Any] | None) -> None:
        """See ``IndexCalls``."""

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
        """See ``IndexCalls``. ``questions`` are token vectors. ``encoder`` is None if it cannot encode texts."""

    def choose_lexical_weight(self, judged: Judged, k: int, *, show_progress: bool) -> dict[str, float]:
        """Choose BM25's share in hybrid searches by judged questions. Returns what was measured."""

    def calibrate(
        self,
        encoder: TokenEncoder | None,
        judged: Sequence[tuple[Question, AbstractSet[str]]],
        *,
        mode: SearchMode,
        n_queries: int,
        show_progress: bool,
    ) -> CalibrationReport:
        """See ``IndexCalls``."""

    def remove_calibration(self) -> bool:
        """See ``IndexCalls``."""


def page_place(after: str, n: int) -> tuple[int, ...]:
    """The ``n`` numbers in ``DocumentPage.next``. Raises InvalidInputError if it has others, or none."""
    parts = after.split(".")
    if len(parts) != n or not all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts):
        raise InvalidInputError(f"after must be what a page of this index has as next, got {shown(after)}")
    return tuple(min(int(part), _MAX_KEY) for part in parts)

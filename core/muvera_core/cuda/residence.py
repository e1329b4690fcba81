"""Which documents' token rows are on the card, and where.

Rows are kept by document key. A key stands for the same rows for ever, so what is on the card needs no updating: new
documents are added, and when many have been deleted all of it is made anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from muvera_core.batches import runs_by_size
from muvera_core.cuda.engine import Documents, HeldRows
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.storage import Rows
from muvera_core.token_embeddings import IntArray

# Rows that are brought to the card at a time, in bytes on the card.
BYTES_AT_ONCE = 64 << 20
# Memory of deleted documents is given back when it is as much as that of the others.
_MAX_DELETED = 0.5


class Session(Protocol):
    """What is needed of ``CudaSession``."""

    def hold(self, rows: Rows) -> HeldRows: ...

    def on_card(self, documents: Documents) -> Documents: ...

    def wait(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Residents:
    """Documents whose rows are on the card, at one moment. They stay there as long as this object is used.

    Attributes:
        keys: ascending, int64, shape (documents,).
        documents: where they are.
        place_of_key: int32, shape (highest key + 2,); -1 for keys that aren't there, and at the end for higher ones.
        on_card: ``documents``, with what is known of them on the card.
        held: the memory of the rows.
        n_tokens: of all of them, deleted ones included.
        equal: the last array of keys that was found to be equal to ``keys``; one entry.
    """

    keys: IntArray
    documents: Documents
    place_of_key: npt.NDArray[np.int32]
    on_card: Documents
    held: tuple[HeldRows, ...]
    n_tokens: int
    equal: list[IntArray] = field(default_factory=list)

    @classmethod
    def none(cls) -> Residents:
        """No documents."""
        nothing = Documents(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int32))
        return cls(np.empty(0, np.int64), nothing, np.full(1, -1, np.int32), nothing, (), 0)

    def places(self, keys: IntArray) -> npt.NDArray[np.int32]:
        """Where keys stand among ``documents``; -1 for those that aren't there."""
        return self.place_of_key.take(keys, mode="clip")

    def are(self, keys: IntArray) -> bool:
        """Whether these keys are just all of them."""
        if len(keys) != len(self.keys):
            return False
        if not (self.equal and self.equal[0] is keys) and np.array_equal(keys, self.keys):
            self.equal[:] = [keys]
        return bool(self.equal) and self.equal[0] is keys

    def followed_by(self, parts: Sequence[tuple[IntArray, Documents, HeldRows]], session: Session) -> Residents:
        """These and others, whose keys are higher: keys, where they are, and the memory."""
        keys = np.concatenate([self.keys, *(part[0] for part in parts)])
        documents = self.documents.followed_by(*(part[1] for part in parts))
        place_of_key = np.full(int(keys[-1]) + 2, -1, dtype=np.int32)
        place_of_key[keys] = np.arange(len(keys), dtype=np.int32)
        held = (*self.held, *(part[2] for part in parts))
        n_tokens = int(documents.n_tokens.sum())
        return Residents(keys, documents, place_of_key, session.on_card(documents), held, n_tokens)


class Residence:
    """Brings documents to the card, up to a budget."""

    def __init__(self, layout: RowLayout, budget: int) -> None:
        """Start empty.

        Args:
            layout: of rows on the card.
            budget: bytes to take at most.
        """
        self.now = Residents.none()
        self._layout, self._budget = layout, budget
        self._changing = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """Memory that the rows take."""
        return self.now.n_tokens * self._layout.bytes_per_token

    def update(
        self,
        session: Session,
        keys: IntArray,
        counts: IntArray,
        read: Callable[[IntArray], tuple[Rows, IntArray]],
        *,
        show_progress: bool = False,
    ) -> None:
        """Bring those documents to the card that aren't there, in the order of their keys, while there is room.

        Args:
            session: of the engine.
            keys: of all documents, ascending.
            counts: of tokens of each.
            read: gives stored rows and offsets of documents.
            show_progress: show a bar on standard error.
        """
        with self._changing:
            now = self.now
            n_live = n_held(now.keys, keys, _MAX_DELETED)
            if not n_live:
                now = self.now = Residents.none()
            room = self._budget // self._layout.bytes_per_token - now.n_tokens
            n = int(np.searchsorted(np.cumsum(counts[n_live:]), room, side="right"))
            keys, counts = keys[n_live : n_live + n], counts[n_live : n_live + n]
            with tqdm(total=n, desc="to the card", unit="doc", disable=not show_progress) as bar:
                parts = []
                for start, end in runs_by_size(counts, BYTES_AT_ONCE // self._layout.bytes_per_token):
                    rows, offsets = read(keys[start:end])
                    held = session.hold(rows)
                    parts.append((keys[start:end], located(held, offsets, self._layout), held))
                    bar.update(end - start)
            if parts:
                arrived = now.followed_by(parts, session)
                session.wait()
                self.now = arrived

    def clear(self) -> None:
        """Let go of everything."""
        with self._changing:
            self.now = Residents.none()


def n_held(held: IntArray, keys: IntArray, most_deleted: float) -> int:
    """How many of ``keys`` are held already: the first ones, since new keys are always higher.

    It is 0 where more than this share of what is held has been deleted: all are to be brought anew.
    """
    n_live = int(np.searchsorted(keys, held[-1], side="right")) if len(held) else 0
    return n_live if len(held) - n_live <= most_deleted * len(held) else 0


def located(held: HeldRows, offsets: IntArray, layout: RowLayout) -> Documents:
    """Where documents are whose rows were brought to the card together."""
    first = offsets[:-1]
    rows_at = (held.rows_at + first * layout.row_bytes).astype(np.uint64)
    scales_at = (held.scales_at + 4 * first if held.scales_at else 0 * first).astype(np.uint64)
    return Documents(rows_at, scales_at, np.diff(offsets).astype(np.int32))

"""The work that an open index can leave to a GPU. ``muvera_core.cuda`` implements it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from muvera_core.maxsim import Ranking
from muvera_core.set_encoders import DocumentEncoder, SetEncoder
from muvera_core.stage_one import StageOne
from muvera_core.storage import Snapshot, Store
from muvera_core.token_embeddings import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class RerankRequest:
    """A query and the documents to rank for it by exact MaxSim.

    Attributes:
        query: float32, shape (tokens, dimension).
        snapshot: the snapshot that holds the documents.
        keys: the documents, int64, ascending. Requests that share this array are ranked together.
    """

    query: FloatArray
    snapshot: Snapshot
    keys: IntArray


class Accelerator(Protocol):
    """A GPU. If a call returns None, the CPU does the work."""

    @property
    def name(self) -> str:
        """Name of the device, such as "cuda:0"."""

    @property
    def n_bytes(self) -> int:
        """Memory of the device that this index holds."""

    def attach(self, store: Store) -> Accelerator | None:
        """Prepare for the documents of a store. Returns None if the CPU has to do everything. Raises DeviceError."""

    def document_encoder(self, encoder: SetEncoder) -> DocumentEncoder:
        """An encoder that gives the same encodings as ``encoder``."""

    def update(self, snapshot: Snapshot, stage_one: StageOne, *, show_progress: bool = False) -> None:
        """Copy the snapshot's documents that the device lacks, while there is room. Raises DeviceError."""

    def update_after_write(self, snapshot: Snapshot, stage_one: StageOne) -> None:
        """The same after a commit. Errors are only logged: the documents are safe, and searches copy what they need."""

    def rank(self, requests: Sequence[RerankRequest], k: int | None) -> list[Ranking] | None:
        """The ``k`` best documents of each request (all if None), by falling MaxSim, ties by rising key."""

    def scans(self, stage_one: StageOne, snapshot: Snapshot) -> bool:
        """Whether ``search`` would answer for this snapshot: the device holds its vectors, and is faster."""

    def search(self, stage_one: StageOne, snapshot: Snapshot, vectors: FloatArray, k: int) -> list[IntArray] | None:
        """For each vector the keys of the ``k`` documents of highest inner product with it, best first."""

    def close(self) -> None:
        """Free the device's memory."""

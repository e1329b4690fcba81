"""What an index leaves to a card, and what happens when the card fails: the CPU takes over, or the user is told."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

from muvera_core.collection import RerankRequest
from muvera_core.cuda.device import CudaDevice, open_device
from muvera_core.cuda.engine import CudaEngine
from muvera_core.cuda.reranker import CudaReranker
from muvera_core.cuda.scan import CudaScan
from muvera_core.cuda.set_encoders import on_card
from muvera_core.errors import DeviceError, DeviceFallbackWarning
from muvera_core.maxsim import Ranking
from muvera_core.set_encoders import DocumentEncoder, SetEncoder
from muvera_core.stage_one import StageOne
from muvera_core.storage import Snapshot, Store
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings

# Of what is free when an index is opened, unless the user says how much: others use the card, too.
_SHARE_OF_FREE = 0.5
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def accelerate(name: str, memory: int | None) -> CudaAccelerator | None:
    """What an index is to use of the device that its user asked for.

    Args:
        name: see ``open_device``.
        memory: bytes to keep on the card; None takes half of what is free.

    Returns:
        None for the CPU.

    Raises:
        InvalidInputError, MissingExtraError, DeviceError: as ``open_device``.
    """
    device = open_device(name)
    return None if device is None else CudaAccelerator(device, memory, takes_over=name == "auto")


class CudaAccelerator:
    """An index's part of a card. What returns None is to be done by the CPU."""

    def __init__(self, device: CudaDevice, memory: int | None, *, takes_over: bool) -> None:
        """See ``accelerate``; ``takes_over``: let the CPU do, with a warning, what fails on the card."""
        self._device, self._takes_over = device, takes_over
        self._memory_asked = memory
        self._scan: tuple[StageOne, CudaScan] | None = None
        self._encoder: tuple[SetEncoder, SetEncoder] | None = None

    def attach(self, store: Store) -> CudaAccelerator | None:
        """Prepare for the documents of a store.

        Args:
            store: holds them.

        Returns:
            Itself, or None where the CPU is to do everything.

        Raises:
            DeviceError: the kernels can't be made.
        """

        def prepare() -> CudaAccelerator:
            asked = self._memory_asked
            self._memory = int(_SHARE_OF_FREE * self._device.free_bytes()) if asked is None else asked
            self._reranker = CudaReranker(CudaEngine(self._device, store.codec), store, self._memory)
            return self

        return self._attempt(prepare)

    @property
    def name(self) -> str:
        """Of the device."""
        return self._device.name

    @property
    def n_bytes(self) -> int:
        """Memory of the card that this index holds."""
        return self._device.n_bytes

    def update(self, snapshot: Snapshot, stage_one: StageOne, *, show_progress: bool = False) -> None:
        """Bring to the card what a committed state has and the card has not, while there is room.

        Raises:
            DeviceError: the card fails.
        """
        self._attempt(lambda: self._update(snapshot, stage_one, show_progress))

    def update_after_write(self, snapshot: Snapshot, stage_one: StageOne) -> None:
        """``update``, but an error is only logged: what was written is safe, and searches bring what they need."""
        try:
            self._update(snapshot, stage_one, False)
        except DeviceError as error:
            _log.warning("new documents couldn't be brought to %s: %s", self.name, error)

    def rank(self, requests: Sequence[RerankRequest], k: int | None) -> list[Ranking] | None:
        """See ``CudaReranker.rank``."""
        return self._attempt(lambda: self._reranker.rank(requests, k))

    def search(self, stage_one: StageOne, snapshot: Snapshot, vector: FloatArray, k: int) -> IntArray | None:
        """Candidates of a state; see ``CudaScan.search``."""
        scan = self._scan
        if scan is None or scan[0] is not stage_one:
            return None
        return self._attempt(lambda: scan[1].search(snapshot, vector, k))

    def document_encoder(self, encoder: SetEncoder) -> DocumentEncoder:
        """Encodes documents on the GPU, or as ``encoder`` does where the CPU takes over."""
        return _DocumentEncoder(self, encoder)

    def encode_documents(self, encoder: SetEncoder, embeddings: TokenEmbeddings) -> FloatArray:
        """Encodings of documents."""

        def encode() -> FloatArray:
            both = self._encoder
            if both is None or both[0] is not encoder:
                both = self._encoder = encoder, on_card(encoder, self._device)
            return both[1].encode_documents(embeddings)

        encoded = self._attempt(encode)
        return encoder.encode_documents(embeddings) if encoded is None else encoded

    def close(self) -> None:
        """Give the card's memory back."""
        self._reranker.clear()
        self._scan = self._encoder = None
        try:
            self._device.release()
        except DeviceError as error:
            _log.warning("the memory of %s couldn't be given back: %s", self.name, error)

    def _update(self, snapshot: Snapshot, stage_one: StageOne, show_progress: bool) -> None:
        self._reranker.update(snapshot, show_progress=show_progress)
        scan = self._scan
        if scan is None or scan[0] is not stage_one:
            scan = self._scan = stage_one, CudaScan(self._device, stage_one.encoder.output_dimension)
        room = self._memory - self._reranker.n_bytes
        scan[1].update(snapshot, stage_one, room)

    def _attempt(self, do: Callable[[], _T]) -> _T | None:
        try:
            return do()
        except DeviceError as error:
            if not self._takes_over:
                raise
            warnings.warn(f"the CPU takes over: {error}", DeviceFallbackWarning, stacklevel=5)
            return None


class _DocumentEncoder:
    """Encodes documents as ``encoder`` does, on the GPU of ``accelerator``."""

    def __init__(self, accelerator: CudaAccelerator, encoder: SetEncoder) -> None:
        self._accelerator, self._encoder = accelerator, encoder

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """See ``DocumentEncoder``."""
        return self._accelerator.encode_documents(self._encoder, embeddings)

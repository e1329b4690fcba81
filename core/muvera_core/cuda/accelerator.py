"""The work that an index does on a GPU. If the GPU fails, the CPU takes over, or the user gets an error."""

from __future__ import annotations

import logging
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import TypeVar

from muvera_core.collection import RerankRequest
from muvera_core.cuda.device import CudaDevice, open_device
from muvera_core.cuda.engine import CudaEngine
from muvera_core.cuda.reranker import CudaReranker
from muvera_core.cuda.scan import CudaScan
from muvera_core.cuda.set_encoders import on_gpu
from muvera_core.errors import DeviceError, DeviceFallbackWarning
from muvera_core.maxsim import Ranking
from muvera_core.set_encoders import DocumentEncoder, SetEncoder
from muvera_core.stage_one import StageOne
from muvera_core.storage import Snapshot, Store, TokenCodec
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings

# Share of the GPU's free memory that an index takes by default. The rest is left to other programs.
_SHARE_OF_FREE = 0.5
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def accelerate(name: str, memory: int | None) -> CudaAccelerator | None:
    """Open the device that the user of an index asked for.

    Args:
        name: see ``open_device``.
        memory: bytes of GPU memory to use; None takes half of what is free.

    Returns:
        The accelerator; None for the CPU.

    Raises:
        InvalidInputError, MissingExtraError, DeviceError: see ``open_device``.
    """
    device = open_device(name)
    return None if device is None else CudaAccelerator(device, memory, takes_over=name == "auto")


class CudaAccelerator:
    """The work that one index leaves to a GPU. If a method returns None, the CPU has to do the work."""

    def __init__(self, device: CudaDevice, memory: int | None, *, takes_over: bool) -> None:
        """See ``accelerate``. With ``takes_over``, a failure of the GPU is a warning, and the CPU does the work."""
        self._device, self._takes_over = device, takes_over
        self._requested_memory = memory
        # Not a strong reference: stage one refers to this object by its encoder of documents. A circle of references
        # would keep the GPU's memory until the garbage collector runs.
        self._scan: tuple[weakref.ref[StageOne], CudaScan] | None = None
        self._encoder: tuple[SetEncoder, SetEncoder] | None = None

    def attach(self, store: Store) -> CudaAccelerator | None:
        """Prepare for the documents of a store.

        Args:
            store: holds the documents.

        Returns:
            This accelerator; None if the CPU has to do everything.

        Raises:
            DeviceError: the kernels cannot be compiled.
        """

        def prepare() -> CudaAccelerator:
            requested = self._requested_memory
            self._memory = int(_SHARE_OF_FREE * self._device.free_bytes()) if requested is None else requested
            self._reranker = self._new_reranker(store, store.codec)
            self._store = store
            return self

        return self._attempt(prepare)

    @property
    def name(self) -> str:
        """Name of the device, such as "cuda:0"."""
        return self._device.name

    @property
    def n_bytes(self) -> int:
        """GPU memory that this index holds."""
        return self._device.n_bytes + self._reranker.n_working_bytes

    def update(self, snapshot: Snapshot, stage_one: StageOne, *, show_progress: bool = False) -> None:
        """Copy the snapshot's documents that the GPU lacks, while there is room.

        Raises:
            DeviceError: the GPU fails.
        """
        self._attempt(lambda: self._update(snapshot, stage_one, show_progress))

    def update_after_write(self, snapshot: Snapshot, stage_one: StageOne) -> None:
        """``update``, but errors are only logged: the documents are safe, and searches copy what they need."""
        try:
            self._update(snapshot, stage_one, False)
        except DeviceError as error:
            _log.warning("new documents could not be copied to %s: %s", self.name, str(error))

    def rank(self, requests: Sequence[RerankRequest], k: int | None) -> list[Ranking] | None:
        """See ``CudaReranker.rank``. None if rows are in another format than those on the GPU."""
        reranker = self._reranker
        codecs = {id(request.snapshot): request.snapshot.tokens.codec for request in requests}
        if any(codec != reranker.codec for codec in codecs.values()):
            return None
        return self._attempt(lambda: reranker.rank(requests, k))

    def scans(self, stage_one: StageOne, snapshot: Snapshot) -> bool:
        """Whether ``search`` would answer for this snapshot, unless the GPU fails."""
        scan = self._scan_of(stage_one)
        return scan is not None and scan.holds(snapshot)

    def search(self, stage_one: StageOne, snapshot: Snapshot, vectors: FloatArray, k: int) -> list[IntArray] | None:
        """Candidates of a snapshot; see ``CudaScan.search``."""
        scan = self._scan_of(stage_one)
        return None if scan is None else self._attempt(lambda: scan.search(snapshot, vectors, k))

    def document_encoder(self, encoder: SetEncoder) -> DocumentEncoder:
        """An encoder that gives the same encodings as ``encoder``, made on the GPU, or on the CPU if it takes over."""
        return _DocumentEncoder(self, encoder)

    def encode_documents(self, encoder: SetEncoder, embeddings: TokenEmbeddings) -> FloatArray:
        """Encodings of documents; see ``document_encoder``."""

        def encode() -> FloatArray:
            pair = self._encoder
            if pair is None or pair[0] is not encoder:
                pair = self._encoder = encoder, on_gpu(encoder, self._device)
            return pair[1].encode_documents(embeddings)

        encoded = self._attempt(encode)
        return encoder.encode_documents(embeddings) if encoded is None else encoded

    def close(self) -> None:
        """Free the GPU memory."""
        self._reranker.clear()
        self._scan = self._encoder = None
        try:
            self._device.release()
        except DeviceError as error:
            _log.warning("the memory of %s could not be freed: %s", self.name, str(error))

    def _new_reranker(self, store: Store, codec: TokenCodec) -> CudaReranker:
        return CudaReranker(CudaEngine(self._device, codec), store, codec, self._memory)

    def _update(self, snapshot: Snapshot, stage_one: StageOne, show_progress: bool) -> None:
        if snapshot.tokens.codec != self._reranker.codec:  # ``optimize`` has rewritten the tokens in another precision
            self._reranker.clear()
            self._reranker = self._new_reranker(self._store, snapshot.tokens.codec)
        self._reranker.update(snapshot, show_progress=show_progress)
        scan = self._scan_of(stage_one)
        if scan is None:
            scan = CudaScan(self._device, stage_one.encoder.output_dimension)
            self._scan = weakref.ref(stage_one), scan
        scan.update(snapshot, stage_one, self._memory - self._reranker.n_bytes)

    def _scan_of(self, stage_one: StageOne) -> CudaScan | None:
        """The scan of this stage one's vectors."""
        scan = self._scan
        return scan[1] if scan is not None and scan[0]() is stage_one else None

    def _attempt(self, work: Callable[[], _T]) -> _T | None:
        """Do work on the GPU. If the GPU fails and the CPU may take over, warn and return None."""
        try:
            return work()
        except DeviceError as error:
            if not self._takes_over:
                raise
            warnings.warn(f"the CPU takes over: {error}", DeviceFallbackWarning, stacklevel=5)
            return None


class _DocumentEncoder:
    """Gives the encodings of ``encoder``, made on the GPU of ``accelerator``."""

    def __init__(self, accelerator: CudaAccelerator, encoder: SetEncoder) -> None:
        self._accelerator, self._encoder = accelerator, encoder

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """See ``DocumentEncoder``."""
        return self._accelerator.encode_documents(self._encoder, embeddings)

"""The set encoders on a card: the same encodings, many documents at a time.

Products are those of cuBLAS in float32, so they differ from NumPy's in the last bits. Where a token lies within that of
a hyperplane, it can fall on the other side, and that repetition's part of the encoding differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from muvera_core.batches import runs_by_size
from muvera_core.cuda.device import CudaDevice, Lane
from muvera_core.cuda.engine import kernel_source
from muvera_core.set_encoders import FixedDimensionalEncoder, LearnedSetEncoder, SetEncoder
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, require_dimension

_THREADS = 128  # of a block; THREADS in encodings.cu
_TOKENS_AT_ONCE = 1024  # TOKENS_AT_ONCE there
# Numbers that a batch's products and encodings may have.
_ELEMENTS = 1 << 26
_LARGEST_GRID = 65_535


def on_card(encoder: SetEncoder, device: CudaDevice) -> SetEncoder:
    """The encoder on a card, or itself where there is no kernel for it. Raises DeviceError."""
    if isinstance(encoder, LearnedSetEncoder):
        return CudaLearnedSetEncoder(encoder, device)
    if isinstance(encoder, FixedDimensionalEncoder) and encoder.config.num_repetitions <= _LARGEST_GRID:
        return CudaFixedDimensionalEncoder(encoder, device)
    return encoder


class _CudaSetEncoder:
    """What both have in common. ``encode_on_card`` takes and gives arrays of the card, the others those of the host."""

    def __init__(self, encoder: SetEncoder, device: CudaDevice, dimension: int, elements_per_token: int) -> None:
        self._encoder, self._device = encoder, device
        self._dimension, self._elements_per_token = dimension, elements_per_token
        self._cupy = device.cupy
        with device.lane() as lane:
            self._module = self._cupy.RawModule(code=kernel_source("encodings.cu"), options=("-std=c++17",))
            self._load()
            lane.stream.synchronize()

    def _load(self) -> None:
        """Bring the matrices to the card."""
        raise NotImplementedError

    def _encode_on_card(self, vectors: Any, offsets: IntArray, lane: Lane, *, are_queries: bool) -> Any:
        """Encode token sets, (tokens, dimension) on the card, to (sets, output dimension) there."""
        raise NotImplementedError

    @property
    def output_dimension(self) -> int:
        """Width of an encoding."""
        return self._encoder.output_dimension

    @property
    def fingerprint(self) -> str:
        """That of the encoder on the host."""
        return self._encoder.fingerprint

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """As the encoder on the host does, within rounding. Raises DeviceError besides."""
        return self._encode(embeddings, are_queries=False)

    def encode_queries(self, embeddings: TokenEmbeddings) -> FloatArray:
        """As the encoder on the host does, within rounding. Raises DeviceError besides."""
        return self._encode(embeddings, are_queries=True)

    def encode_documents_on_card(self, vectors: Any, offsets: IntArray) -> Any:
        """Encode documents whose tokens are on the card already, and leave the encodings there.

        Args:
            vectors: float32, shape (tokens, dimension), on this card: a CuPy array or whatever speaks DLPack, such as
                a PyTorch tensor.
            offsets: int64, shape (documents + 1,); see ``TokenEmbeddings``.

        Returns:
            A CuPy array, float32, shape (documents, output_dimension).
        """
        with self._device.lane() as lane:
            tokens = self._cupy.ascontiguousarray(self._cupy.from_dlpack(vectors), dtype=np.float32)
            encodings = self._cupy.empty((len(offsets) - 1, self.output_dimension), dtype=np.float32)
            for start, end in self._batches(np.diff(offsets)):
                some = tokens[offsets[start] : offsets[end]]
                encodings[start:end] = self._encode_on_card(
                    some, offsets[start : end + 1] - offsets[start], lane, are_queries=False
                )
            lane.stream.synchronize()
            return encodings

    def _encode(self, embeddings: TokenEmbeddings, *, are_queries: bool) -> FloatArray:
        require_dimension(embeddings, self._dimension, "this encoder")
        encodings = np.empty((len(embeddings), self.output_dimension), dtype=np.float32)
        with self._device.lane() as lane:
            for start, end in self._batches(embeddings.lengths):
                offsets = embeddings.offsets[start : end + 1]
                vectors = self._cupy.empty((int(offsets[-1] - offsets[0]), self._dimension), dtype=np.float32)
                lane.send_to(vectors, embeddings.vectors[offsets[0] : offsets[-1]])
                encoded = self._encode_on_card(vectors, offsets - offsets[0], lane, are_queries=are_queries)
                lane.fetch(int(encoded.data.ptr), encodings[start:end])
        return encodings

    def _batches(self, lengths: IntArray) -> Iterator[tuple[int, int]]:
        """Runs of token sets whose products and encodings fit."""
        most = max(1, _ELEMENTS // self.output_dimension)
        for start, end in runs_by_size(lengths, max(1, _ELEMENTS // self._elements_per_token)):
            for first in range(start, end, most):
                yield first, min(end, first + most)


class CudaFixedDimensionalEncoder(_CudaSetEncoder):
    """``FixedDimensionalEncoder`` on a card."""

    def __init__(self, encoder: FixedDimensionalEncoder, device: CudaDevice) -> None:
        """Bring the matrices to the card. Raises DeviceError."""
        self._fde = encoder
        columns = encoder.transform.shape[1]
        super().__init__(encoder, device, encoder.config.dimension, max(columns, encoder.config.dimension))

    def _load(self) -> None:
        cupy, config, matrices = self._cupy, self._fde.config, self._fde.matrices
        self._transform = cupy.asarray(self._fde.transform)
        self._mean = None if self._fde.mean is None else cupy.asarray(self._fde.mean)
        self._kernel = self._module.get_function("encode")
        self._sketch_kernel = self._module.get_function("sketch")
        if matrices.sketch_index is not None:
            sources = np.argsort(matrices.sketch_index, kind="stable")
            starts = np.searchsorted(matrices.sketch_index[sources], np.arange(config.output_dimension + 1))
            self._starts, self._sources = cupy.asarray(starts.astype(np.int32)), cupy.asarray(sources.astype(np.int32))
            self._signs = cupy.asarray(matrices.sketch_sign, dtype=np.float32)

    def _encode_on_card(self, vectors: Any, offsets: IntArray, lane: Lane, *, are_queries: bool) -> Any:
        cupy, config, n = self._cupy, self._fde.config, len(offsets) - 1
        if self._mean is not None:
            vectors = vectors - self._mean
        products = vectors @ self._transform
        (offsets_at,) = lane.send(offsets)
        encodings = cupy.empty((n, config.sketched_from), dtype=np.float32)
        cells = 1 << config.num_simhash_projections
        self._kernel(
            (n, config.num_repetitions),
            (_THREADS,),
            (
                products,
                np.int32(products.shape[1]),
                np.uint64(0) if config.projection_dimension else vectors,
                np.uint64(offsets_at),
                np.int32(config.num_simhash_projections),
                np.int32(config.value_dimension),
                np.bool_(are_queries),
                np.bool_(config.fill_empty_partitions),
                encodings,
            ),
            shared_mem=4 * (2 * cells + _TOKENS_AT_ONCE),
        )
        if config.final_projection_dimension is None:
            return encodings
        sketched = cupy.empty((n, config.output_dimension), dtype=np.float32)
        self._sketch_kernel(
            (-(-sketched.size // _THREADS),),
            (_THREADS,),
            (
                encodings,
                np.int64(n),
                np.int32(config.sketched_from),
                np.int32(config.output_dimension),
                self._starts,
                self._sources,
                self._signs,
                sketched,
            ),
        )
        return sketched


class CudaLearnedSetEncoder(_CudaSetEncoder):
    """``LearnedSetEncoder`` on a card; queries, one at a time, are encoded on the host."""

    def __init__(self, encoder: LearnedSetEncoder, device: CudaDevice) -> None:
        """Bring the matrices to the card. Raises DeviceError."""
        self._learned = encoder
        super().__init__(encoder, device, encoder.config.dimension, encoder.config.num_anchors)

    def encode_queries(self, embeddings: TokenEmbeddings) -> FloatArray:
        """As the encoder on the host does."""
        return self._learned.encode_queries(embeddings)

    def _load(self) -> None:
        cupy, matrices = self._cupy, self._learned.matrices
        self._anchors = cupy.asarray(matrices.anchors)
        self._anchor_means = cupy.asarray(matrices.anchor_means)
        self._document_map = cupy.asarray(np.ascontiguousarray(matrices.document_map.T))
        self._squared_length = np.float32(float(matrices.length) ** 2)
        self._highest = self._module.get_function("highest")

    def _encode_on_card(self, vectors: Any, offsets: IntArray, lane: Lane, *, are_queries: bool) -> Any:
        cupy, n, n_anchors = self._cupy, len(offsets) - 1, self._anchors.shape[1]
        products = vectors @ self._anchors
        (offsets_at,) = lane.send(offsets)
        matches = cupy.empty((n, n_anchors), dtype=np.float32)
        self._highest(
            (n, -(-n_anchors // _THREADS)),
            (_THREADS,),
            (products, np.int32(n_anchors), np.uint64(offsets_at), matches),
        )
        matches -= self._anchor_means
        encodings = cupy.empty((n, self.output_dimension), dtype=np.float32)
        encodings[:, :-1] = matches @ self._document_map
        missing = self._squared_length - cupy.square(encodings[:, :-1]).sum(axis=1)
        encodings[:, -1] = cupy.sqrt(cupy.maximum(0, missing))
        return encodings

"""The set encoders on the GPU: the same encodings, for many documents at a time.

cuBLAS computes the products in float32, so they differ from NumPy's in the last bits. A token that is that close to a
hyperplane can fall on its other side. Then that repetition's part of the encoding differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from muvera_core.batches import runs_by_size
from muvera_core.cuda.device import CudaDevice, Workspace
from muvera_core.cuda.launch import kernel_source
from muvera_core.cuda.rows_on_gpu import rows_on_gpu
from muvera_core.set_encoders import FixedDimensionalEncoder, LearnedSetEncoder, SetEncoder
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, require_dimension

_THREADS = 128  # per block; THREADS in encodings.cu
_TOKENS_AT_ONCE = 1024  # TOKENS_AT_ONCE in encodings.cu
# Most numbers in the products, and in the encodings, of a batch.
_ELEMENTS = 1 << 26
_LARGEST_GRID = 65_535


def on_gpu(encoder: SetEncoder, device: CudaDevice) -> SetEncoder:
    """The encoder on the GPU, or the encoder itself if there is no kernel for it. Raises DeviceError."""
    if isinstance(encoder, LearnedSetEncoder):
        return CudaLearnedSetEncoder(encoder, device)
    if isinstance(encoder, FixedDimensionalEncoder) and encoder.config.num_repetitions <= _LARGEST_GRID:
        return CudaFixedDimensionalEncoder(encoder, device)
    return encoder


class _CudaSetEncoder:
    """Base of the encoders below. ``_encode_on_gpu`` works on GPU arrays, the public methods on arrays of the host."""

    def __init__(self, encoder: SetEncoder, device: CudaDevice, dimension: int, elements_per_token: int) -> None:
        self._encoder, self._device = encoder, device
        self._dimension, self._elements_per_token = dimension, elements_per_token
        self._cupy = device.cupy
        with device.workspace() as workspace:
            self._module = self._cupy.RawModule(code=kernel_source("encodings.cu"), options=("-std=c++17",))
            self._rounding = self._module.get_function("round_to_int8")
            self._load()
            workspace.stream.synchronize()

    def _load(self) -> None:
        """Copy the matrices to the GPU."""
        raise NotImplementedError

    def _encode_on_gpu(self, vectors: Any, offsets: IntArray, workspace: Workspace, *, are_queries: bool) -> Any:
        """Encode token sets, a GPU array (tokens, dimension), to a GPU array (sets, output dimension)."""
        raise NotImplementedError

    @property
    def output_dimension(self) -> int:
        """Width of an encoding."""
        return self._encoder.output_dimension

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the encoder on the CPU."""
        return self._encoder.fingerprint

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """The encodings of the encoder on the CPU, within rounding. Also raises DeviceError."""
        return self._encode(embeddings, are_queries=False)

    def encode_queries(self, embeddings: TokenEmbeddings) -> FloatArray:
        """The encodings of the encoder on the CPU, within rounding. Also raises DeviceError."""
        return self._encode(embeddings, are_queries=True)

    def encode_documents_on_gpu(self, vectors: Any, offsets: IntArray) -> Any:
        """Encode documents whose tokens are already on the GPU, and leave the encodings there.

        Args:
            vectors: float32, shape (tokens, dimension), on this GPU: a CuPy array or any object that supports DLPack,
                such as a PyTorch tensor.
            offsets: int64, shape (documents + 1,); see ``TokenEmbeddings``.

        Returns:
            A CuPy array, float32, shape (documents, output_dimension). Keep it until your own work with it has ended.
        """
        with self._device.workspace() as workspace:
            tokens = self._cupy.ascontiguousarray(self._cupy.from_dlpack(vectors), dtype=np.float32)
            encodings = self._cupy.empty((len(offsets) - 1, self.output_dimension), dtype=np.float32)
            for start, end in self._batches(np.diff(offsets)):
                batch = tokens[offsets[start] : offsets[end]]
                encodings[start:end] = self._encode_on_gpu(
                    batch, offsets[start : end + 1] - offsets[start], workspace, are_queries=False
                )
            workspace.stream.synchronize()
            return encodings

    def _encode(self, embeddings: TokenEmbeddings, *, are_queries: bool) -> FloatArray:
        require_dimension(embeddings, self._dimension, "this encoder")
        encodings = np.empty((len(embeddings), self.output_dimension), dtype=np.float32)
        with self._device.workspace() as workspace:
            for start, end in self._batches(embeddings.lengths):
                offsets = embeddings.offsets[start : end + 1]
                vectors = self._on_gpu(embeddings, int(offsets[0]), int(offsets[-1]), workspace)
                encoded = self._encode_on_gpu(vectors, offsets - offsets[0], workspace, are_queries=are_queries)
                workspace.fetch(int(encoded.data.ptr), encodings[start:end])
        return encodings

    def _on_gpu(self, embeddings: TokenEmbeddings, start: int, stop: int, workspace: Workspace) -> Any:
        """Vectors ``start`` to ``stop`` on this GPU, float32. They are sent there unless it has them."""
        rows = embeddings.on_gpu
        if rows is not None and rows.gpu == self._device.number:
            return rows_on_gpu(rows.part(start, stop), self._cupy, self._rounding)
        vectors = self._cupy.empty((stop - start, self._dimension), dtype=np.float32)
        workspace.send_to(vectors, embeddings.vectors[start:stop])
        return vectors

    def _batches(self, lengths: IntArray) -> Iterator[tuple[int, int]]:
        """Ranges of token sets whose products and encodings have at most ``_ELEMENTS`` numbers."""
        most = max(1, _ELEMENTS // self.output_dimension)
        for start, end in runs_by_size(lengths, max(1, _ELEMENTS // self._elements_per_token)):
            for first in range(start, end, most):
                yield first, min(end, first + most)


class CudaFixedDimensionalEncoder(_CudaSetEncoder):
    """``FixedDimensionalEncoder`` on the GPU."""

    def __init__(self, encoder: FixedDimensionalEncoder, device: CudaDevice) -> None:
        """Copy the matrices to the GPU. Raises DeviceError."""
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

    def _encode_on_gpu(self, vectors: Any, offsets: IntArray, workspace: Workspace, *, are_queries: bool) -> Any:
        cupy, config, n = self._cupy, self._fde.config, len(offsets) - 1
        if self._mean is not None:
            vectors = vectors - self._mean
        products = vectors @ self._transform
        (offsets_at,) = workspace.send(offsets)
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
    """``LearnedSetEncoder`` on the GPU. Queries are encoded on the CPU, one at a time."""

    def __init__(self, encoder: LearnedSetEncoder, device: CudaDevice) -> None:
        """Copy the matrices to the GPU. Raises DeviceError."""
        self._learned = encoder
        super().__init__(encoder, device, encoder.config.dimension, encoder.config.num_anchors)

    def encode_queries(self, embeddings: TokenEmbeddings) -> FloatArray:
        """See ``LearnedSetEncoder``."""
        return self._learned.encode_queries(embeddings)

    def _load(self) -> None:
        cupy, matrices = self._cupy, self._learned.matrices
        self._anchors = cupy.asarray(matrices.anchors)
        self._anchor_means = cupy.asarray(matrices.anchor_means)
        self._document_map = cupy.asarray(np.ascontiguousarray(matrices.document_map.T))
        self._squared_length = np.float32(float(matrices.length) ** 2)
        self._highest = self._module.get_function("highest")

    def _encode_on_gpu(self, vectors: Any, offsets: IntArray, workspace: Workspace, *, are_queries: bool) -> Any:
        cupy, n, n_anchors = self._cupy, len(offsets) - 1, self._anchors.shape[1]
        products = vectors @ self._anchors
        (offsets_at,) = workspace.send(offsets)
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

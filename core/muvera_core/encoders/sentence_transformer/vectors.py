"""Finishes the vectors of a model: arrays of the host, or tensors that stay in the memory of a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from muvera_core.device_rows import DeviceRows
from muvera_core.errors import EncoderError
from muvera_core.token_embeddings import FloatArray, TokenEmbeddings, unit_length

if TYPE_CHECKING:
    from torch import Tensor

    Vectors = FloatArray | Tensor

# Vectors whose length differs from 1 by more than this are scaled. Rounding in float32 makes no such difference.
_LENGTH_TOLERANCE = 1e-5
# Most tokens of a call whose vectors stay on the GPU: 128 MB if they have 128 dimensions.
MOST_ON_GPU = 1 << 18
# The same in images, of which each has one or two thousand tokens.
MOST_IMAGES_ON_GPU = 128


def finished(vectors: Vectors, dimension: int) -> Vectors:
    """The first components, float32, of unit length."""
    if not isinstance(vectors, np.ndarray):
        return _finished_tensor(vectors, dimension)
    cut = np.asarray(vectors, dtype=np.float32)[:, :dimension]
    lengths = np.linalg.norm(cut, axis=1)
    other = (np.abs(lengths - 1) > _LENGTH_TOLERANCE) & np.isfinite(lengths)
    if other.any():
        cut = cut.copy()
        cut[other] = unit_length(cut[other])
    return cut


def _finished_tensor(vectors: Tensor, dimension: int) -> Tensor:
    """The same on the tensor's device. Nothing waits for it."""
    import torch

    cut = vectors.float()[:, :dimension]
    lengths = torch.linalg.vector_norm(cut, dim=1, keepdim=True)
    other = ((lengths - 1).abs() > _LENGTH_TOLERANCE) & lengths.isfinite()
    return torch.where(other, cut / torch.where(lengths > 0, lengths, 1), cut)


def joined(parts: Sequence[Any]) -> Any:
    """Arrays, or tensors, one after the other."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import torch

    return torch.cat(list(parts))


def as_embeddings(vectors: Sequence[Vectors], dimension: int) -> TokenEmbeddings:
    """The vectors of texts. If all are tensors of one GPU, they stay there, and the host has the same numbers.

    Storing needs the vectors on the host. A GPU that searches encodes them for stage one where they are.

    Raises:
        EncoderError: tensors cannot be joined or copied.
        InvalidInputError: a vector holds NaN or infinity.
    """
    if not vectors or any(isinstance(each, np.ndarray) for each in vectors):
        arrays = [each if isinstance(each, np.ndarray) else each.cpu().numpy() for each in vectors]
        return TokenEmbeddings.from_list(arrays, dimension=dimension)
    try:
        whole = joined(vectors)
        on_host = whole.cpu().numpy()
    except RuntimeError as error:  # of PyTorch, such as a lack of memory on the GPU
        raise EncoderError(f"the model's vectors cannot be copied from its device: {error}") from error
    offsets = np.cumsum([0, *map(len, vectors)])
    return TokenEmbeddings(on_host, offsets).with_gpu(DeviceRows.of([whole]))

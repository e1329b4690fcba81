from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from muvera_core import TokenEmbeddings
from muvera_core.errors import DimensionMismatchError, InvalidInputError


def test_from_list_lays_texts_end_to_end() -> None:
    first, second = np.ones((2, 3)), np.full((1, 3), 2.0)
    embeddings = TokenEmbeddings.from_list([first, second])
    assert len(embeddings) == 2
    assert embeddings.dimension == 3
    assert embeddings.offsets.tolist() == [0, 2, 3]
    assert embeddings.lengths.tolist() == [2, 1]
    np.testing.assert_array_equal(embeddings[0], first)
    np.testing.assert_array_equal(embeddings[-1], second)
    assert embeddings.vectors.dtype == np.float32


def test_index_outside_raises_index_error() -> None:
    embeddings = TokenEmbeddings.from_list([np.ones((1, 2))])
    with pytest.raises(IndexError):
        embeddings[1]


def test_no_texts_is_allowed() -> None:
    assert len(TokenEmbeddings.from_list([], dimension=128)) == 0
    assert TokenEmbeddings.from_list([], dimension=128).dimension == 128


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        pytest.param([np.ones(3)], "shape", id="one axis"),
        pytest.param([np.ones((0, 3))], "at least one token", id="no tokens"),
        pytest.param([[[1.0, np.nan]]], "NaN or infinity in token 0", id="nan"),
        pytest.param([[[1.0, 2.0], [np.inf, 0.0]]], "NaN or infinity in token 1", id="infinity"),
        pytest.param([np.array([["a", "b"]])], "real numbers", id="strings"),
        pytest.param([np.ones((1, 2), dtype=complex)], "real numbers", id="complex"),
    ],
)
def test_unusable_arrays_are_refused(arrays: list[np.ndarray], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        TokenEmbeddings.from_list(arrays)


class OnDevice:
    """An array of a library in GPU memory: DLPack can copy it to the host, NumPy alone cannot."""

    def __init__(self, array: np.ndarray, *, comes: bool = True) -> None:
        self.array, self.comes = array, comes

    def __array__(self, *args: Any, **settings: Any) -> np.ndarray:
        raise TypeError("can't convert device memory to numpy")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, *, dl_device: tuple[int, int] | None = None, **settings: Any) -> Any:
        if dl_device != (1, 0) or not self.comes:
            raise BufferError("the GPU is gone")
        return self.array.__dlpack__(**settings)


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="NumPy before 2.1 cannot copy arrays from a GPU"
)
def test_arrays_on_a_gpu_are_copied() -> None:
    arrays = [np.arange(6, dtype=dtype).reshape(2, 3) for dtype in (np.float32, np.float16)]
    embeddings = TokenEmbeddings.from_list([OnDevice(array) for array in arrays])
    np.testing.assert_array_equal(embeddings.vectors, np.concatenate(arrays))
    assert embeddings.vectors.dtype == np.float32
    offsets = OnDevice(np.array([0, 2]))
    assert TokenEmbeddings(OnDevice(arrays[0]), offsets).lengths.tolist() == [2]  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="item 1 has NaN"):
        TokenEmbeddings.from_list([arrays[0], OnDevice(np.full((1, 3), np.nan, np.float32))])


def test_arrays_that_cannot_be_copied_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"item 0, of type OnDevice, is on a device .* Copy it"):
        TokenEmbeddings.from_list([OnDevice(np.ones((1, 3), np.float32), comes=False)])


def test_widths_must_agree() -> None:
    with pytest.raises(DimensionMismatchError, match="item 1 has 4-d token vectors, expected 3-d"):
        TokenEmbeddings.from_list([np.ones((1, 3)), np.ones((1, 4))])


@pytest.mark.parametrize("offsets", [[1, 2], [0, 1], [0, 3, 2], [0, 0, 2], [], [[0, 2]], [0.0, 2.0]])
def test_offsets_must_fit_the_vectors(offsets: list[int]) -> None:
    with pytest.raises(InvalidInputError):
        TokenEmbeddings(np.ones((2, 3), np.float32), np.array(offsets))


def test_concatenate_joins_in_order() -> None:
    a = TokenEmbeddings.from_list([np.full((1, 2), 1.0)])
    b = TokenEmbeddings.from_list([np.full((2, 2), 2.0), np.full((1, 2), 3.0)])
    joined = TokenEmbeddings.concatenate([a, b])
    assert [float(row[0, 0]) for row in joined] == [1.0, 2.0, 3.0]

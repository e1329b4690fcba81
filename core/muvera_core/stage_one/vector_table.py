"""Finds out whether a graph has a vector already, up to rounding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from muvera_core.token_embeddings import FloatArray

# The distance up to which vectors of unit length count as equal. Sums of numbers of 24 bits differ by less if they are
# added up in another order, and inner products of 24 bits do not tell them apart.
_ROUNDING = 1e-5
# Cells are so small that even similar passages, at distances of 0.01 and more, are seldom in the same one.
_CELL_WIDTH = 2e-3
_N_AXES = 4
_ITEMS_PER_CELL = 8
_SEED = 0


class VectorTable:
    """Finds the item of a graph that has a given vector, up to rounding.

    Space is divided into small cells by a random projection. Equal vectors are in one cell, and so are nearly all that
    differ by rounding. Different vectors may be in one cell, so what is found is compared.
    """

    def __init__(self, dimension: int) -> None:
        rng = np.random.default_rng(_SEED)
        self._axes = rng.standard_normal((dimension, _N_AXES), dtype=np.float32) / np.float32(_CELL_WIDTH)
        self._multipliers = rng.integers(1 << 62, size=_N_AXES, dtype=np.int64)
        self._items: dict[int, int] = {}  # by cell; further items of a cell have the numbers that follow

    def cells(self, vectors: FloatArray) -> list[int]:
        """The number of each vector's cell."""
        cells: list[int] = (np.floor(vectors @ self._axes).astype(np.int64) @ self._multipliers).tolist()
        return cells

    def put(self, cell: int, item: int) -> None:
        """Note an item. A cell that is full forgets its last one."""
        place = next((place for place in range(cell, cell + _ITEMS_PER_CELL - 1) if place not in self._items), None)
        self._items[cell + _ITEMS_PER_CELL - 1 if place is None else place] = item

    def items(self, cell: int) -> list[int]:
        """The items in a cell. They may be deleted."""
        found = []
        for place in range(cell, cell + _ITEMS_PER_CELL):
            if (item := self._items.get(place)) is None:
                break
            found.append(item)
        return found


def are_equal(a: FloatArray, b: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether vectors of unit length, shape (..., dimension), are equal up to rounding."""
    difference = a - b
    return np.asarray(np.einsum("...d,...d->...", difference, difference) <= _ROUNDING**2)

"""Columns of numbers that are only appended to, on the host and on the GPU, with spare room at their end.

A column is a view: the first numbers of an array. Appending makes a longer view of the same array or, if it is full, of
a larger copy. So whoever holds a column keeps its numbers, and never sees later ones. Only one thread may append, and
only to the longest column of an array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from muvera_core.cuda.device import Workspace

# A full array grows by this factor, so numbers are copied about twice, however few are appended at a time.
GROWTH = 1.5
# CuPy's memory pool gives multiples of this many bytes.
_UNIT = 512


@dataclass(frozen=True, eq=False)
class Column:
    """The first ``n`` numbers of an array.

    Attributes:
        memory: the array, of the host or of the GPU, shape (capacity,).
        n: number of entries in use.
    """

    memory: Any
    n: int

    @classmethod
    def empty(cls, dtype: type[np.generic]) -> Column:
        """A column without memory, which can be continued on the host or on the GPU."""
        return cls(np.empty(0, dtype), 0)

    @property
    def values(self) -> Any:
        """The numbers, shape (n,)."""
        return self.memory[: self.n]

    @property
    def address(self) -> int:
        """Address of the first number on the GPU; 0 for a column without memory."""
        return int(self.memory.data.ptr) if len(self.memory) else 0

    @property
    def end(self) -> int:
        """Address behind the last number on the GPU."""
        return self.address + self.n * int(self.memory.dtype.itemsize)

    @property
    def n_bytes(self) -> int:
        """Memory of the array."""
        return int(self.memory.nbytes)

    def __len__(self) -> int:
        return self.n

    def capacity_for(self, n: int) -> int:
        """Length of an array for ``n`` numbers in all: this one's if they fit."""
        capacity = len(self.memory)
        if n <= capacity:
            return capacity
        itemsize = int(self.memory.dtype.itemsize)
        n_bytes = max(n, int(GROWTH * capacity)) * itemsize
        return -(-n_bytes // _UNIT) * _UNIT // itemsize

    def n_bytes_for(self, n: int) -> int:
        """Most memory that is taken while the column becomes ``n`` numbers long: when it grows, two arrays exist."""
        capacity = self.capacity_for(n)
        grown = capacity * int(self.memory.dtype.itemsize)
        return grown if capacity == len(self.memory) else grown + self.n_bytes

    def followed_by(self, values: npt.NDArray[Any]) -> Column:
        """A column of the host with more numbers at its end."""
        n = self.n + len(values)
        memory = self.memory
        if n > len(memory):
            memory = np.empty(self.capacity_for(n), dtype=memory.dtype)
            memory[: self.n] = self.values
        memory[self.n : n] = values
        return Column(memory, n)


def extended_on_gpu(
    workspace: Workspace, columns: Sequence[Column], values: Sequence[npt.NDArray[Any]], sizes: Sequence[int]
) -> list[Column]:
    """Columns of the GPU with more numbers at their ends, which are sent together. Full columns grow on the GPU.

    Work on other streams may use the longer columns when the workspace's stream has been waited for. Until then, the
    shorter ones must be kept.

    Args:
        workspace: copies the numbers.
        columns: the columns.
        values: what to append to each, of the same type.
        sizes: number of entries to have room for in each, if that is more than the column and its values have.
    """
    longer, ends = [], []
    for column, added, size in zip(columns, values, sizes, strict=True):
        n, memory = len(column) + len(added), column.memory
        capacity = column.capacity_for(max(n, size))
        if capacity > len(memory):
            memory = workspace.device.cupy.empty(capacity, dtype=memory.dtype)
            workspace.copy(int(memory.data.ptr), column.address, len(column) * memory.dtype.itemsize)
        longer.append(Column(memory, n))
        ends.append(Column(memory, len(column)).end)
    workspace.write(ends, values)
    return longer

"""GPU memory for token rows, in blocks that never move, with spare room at the end of the last one."""

from __future__ import annotations

from dataclasses import dataclass

from muvera_core.cuda.gpu_data import GpuRows
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.cuda.session import CudaSession

# Most rows that are copied to the GPU at a time, and most spare room, in bytes on the GPU.
BYTES_AT_ONCE = 64 << 20
# A new block has spare room for later rows: one for so many rows. More room wastes memory, less makes more blocks.
_ROWS_PER_SPARE_ROW = 8
# Blocks have a multiple of this many rows, so that CuPy's pool rounds nothing up.
_UNIT = 256


@dataclass(frozen=True, eq=False)
class RowBlocks:
    """Blocks of GPU memory, filled one after the other. They stay as long as this object is used.

    Attributes:
        layout: layout of the rows.
        blocks: the memory.
        n_rows: number of rows that all blocks have room for.
        n_in_last: number of rows that the last block has room for.
        n_used: number of rows in use in the last block.
    """

    layout: RowLayout
    blocks: tuple[GpuRows, ...] = ()
    n_rows: int = 0
    n_in_last: int = 0
    n_used: int = 0

    @property
    def n_bytes(self) -> int:
        """GPU memory of the blocks."""
        return self.n_rows * self.layout.bytes_per_token

    @property
    def n_spare(self) -> int:
        """Number of rows for which there is room in the last block."""
        return self.n_in_last - self.n_used

    def n_bytes_for(self, n: int) -> int:
        """Most memory that the blocks take when ``n`` rows have been added in batches of ``BYTES_AT_ONCE``."""
        if n <= self.n_spare:
            return self.n_bytes
        n_batches = 1 + 2 * n * self.layout.bytes_per_token // BYTES_AT_ONCE  # two of them always exceed the limit
        return self.n_bytes + (n + _UNIT * n_batches) * self.layout.bytes_per_token

    def with_room(self, session: CudaSession, n: int, most_spare: int) -> tuple[RowBlocks, GpuRows]:
        """Take room for ``n`` rows, in the last block or in a new one.

        Args:
            session: allocates blocks.
            n: number of rows.
            most_spare: most bytes that a new block may have as spare room.

        Returns:
            The blocks, and the memory for the rows.
        """
        if n > self.n_spare:
            most = max(0, min(most_spare, BYTES_AT_ONCE)) // self.layout.bytes_per_token
            spare = min(most, (self.n_rows + n) // _ROWS_PER_SPARE_ROW)
            size = -(-n // _UNIT) * _UNIT + spare // _UNIT * _UNIT
            block = session.allocate_rows(size)
            return RowBlocks(self.layout, (*self.blocks, block), self.n_rows + size, size, n), block
        block = self.blocks[-1]
        scales_at = block.scales_at + self.n_used * self.layout.scale_bytes
        rows = GpuRows(block.rows_at + self.n_used * self.layout.row_bytes, scales_at, block.arrays)
        return RowBlocks(self.layout, self.blocks, self.n_rows, self.n_in_last, self.n_used + n), rows

from typing import Any

import numpy as np
import numpy.typing as npt

def available_kernels() -> list[str]: ...
def maxsim_kernels() -> list[str]: ...
def score_documents(
    source: int | npt.NDArray[Any],
    first: npt.NDArray[Any],
    count: npt.NDArray[Any],
    layout: str,
    levels: npt.NDArray[Any],
    tokens: npt.NDArray[Any],
    query_offsets: npt.NDArray[Any],
    n_threads: int,
    coarse: bool,
    kernel: str,
    scores: npt.NDArray[Any],
) -> None: ...
def score_rows(
    rows: npt.NDArray[Any],
    scales: npt.NDArray[Any] | None,
    offsets: npt.NDArray[Any],
    tokens: npt.NDArray[Any],
    query_offsets: npt.NDArray[Any],
    n_threads: int,
    kernel: str,
    scores: npt.NDArray[Any],
) -> None: ...
def crc32(
    source: int | npt.NDArray[Any],
    first: npt.NDArray[Any],
    count: npt.NDArray[Any],
    row_bytes: int,
    checksums: npt.NDArray[Any],
) -> None: ...

class FdeEncoder:
    def __init__(
        self,
        kernel: str,
        hyperplanes: npt.NDArray[np.float32],
        projection: npt.NDArray[np.float32] | None,
        sketch_index: npt.NDArray[np.int32] | None,
        sketch_sign: npt.NDArray[np.float32] | None,
        mean: npt.NDArray[np.float32] | None,
        output_dimension: int,
        fill: bool,
    ) -> None: ...
    def encode(
        self,
        tokens: npt.NDArray[np.float32],
        offsets: npt.NDArray[np.int64],
        encodings: npt.NDArray[np.float32],
        are_documents: bool,
        n_threads: int,
    ) -> None: ...

def find_best(
    codes: npt.NDArray[np.int8],
    scales: npt.NDArray[np.float32],
    coarse: npt.NDArray[np.uint8] | None,
    coarse_scales: npt.NDArray[np.float32] | None,
    keys: npt.NDArray[np.int64],
    admitted: npt.NDArray[np.uint8] | None,
    queries: npt.NDArray[np.int16],
    n_kept: int,
    found: npt.NDArray[np.int64],
    n_threads: int,
    kernel: str,
) -> None: ...
def coarsen(
    codes: npt.NDArray[np.int8],
    scales: npt.NDArray[np.float32],
    coarse: npt.NDArray[np.uint8],
    coarse_scales: npt.NDArray[np.float32],
    n_threads: int,
    kernel: str,
) -> None: ...

class CudaRanker:
    def __init__(
        self,
        driver: str,
        device: int,
        *,
        find_places: int,
        split_queries: int,
        maxsim: int,
        add_chunks: int,
        select: int,
        dimension: int,
        query_row_bytes: int,
        query_row_width: int,
        limit: int,
        chunk: int,
        warps_together: int,
        warps_per_block: int,
        most_warps: int,
    ) -> None: ...
    @property
    def n_bytes(self) -> int: ...
    def rank(
        self,
        queries: list[npt.NDArray[np.float32]],
        lists: list[npt.NDArray[np.int64]],
        place_of_key: int,
        n_keys: int,
        rows_at: int,
        scales_at: int,
        n_tokens: int,
        most: int,
        keys: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32],
    ) -> bool: ...

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

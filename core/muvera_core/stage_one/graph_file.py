"""Checks of a saved hnswlib graph before hnswlib reads it.

hnswlib allocates whatever a file's header asks for and follows links without checking them, so a damaged or forged
graph would crash the process. The layout is that of hnswlib 0.8: a header; then for each element its links on the
ground level, its vector and its label; then for each element its links on the levels above.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core.errors import CorruptIndexError
from muvera_core.stage_one.graph_parameters import GraphParameters
from muvera_core.token_embeddings import IntArray

_HEADER = struct.Struct("<QQQQQQiIQQQdQ")
_DELETED = 1 << 16


def check_graph_file(path: Path, dimension: int, parameters: GraphParameters) -> tuple[int, IntArray]:
    """Check that hnswlib can safely load the file as a graph of vectors of this width, made with these parameters.

    Returns:
        The number of elements, deleted ones included, and the labels of the elements that are not deleted.

    Raises:
        CorruptIndexError: the file is damaged, or its graph has another width or other parameters.
    """
    size = path.stat().st_size
    ground_width, upper_width = 2 * parameters.m + 1, parameters.m + 1
    element_size = 4 * ground_width + 4 * dimension + 8
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
    _require(len(header) == _HEADER.size, "it is too short")
    level_offset, capacity, n, *layout, top, entry, m, m0, m_again, mult, ef = _HEADER.unpack(header)
    _require(level_offset == 0 and layout == [element_size, element_size - 8, 4 * ground_width], "its layout is wrong")
    _require((m, m0, m_again) == (parameters.m, 2 * parameters.m, parameters.m), "its parameters are wrong")
    _require(ef == parameters.ef_construction, "its parameters are wrong")
    _require(math.isclose(mult, 1 / math.log(parameters.m)), "its parameters are wrong")
    _require(0 < n <= capacity and n * (element_size + 4) <= size - _HEADER.size, "it holds fewer elements than noted")
    elements = np.memmap(path, np.uint8, "r", _HEADER.size, (n, element_size))
    ground = np.ascontiguousarray(elements[:, : 4 * ground_width]).view("<u4")
    labels = np.ascontiguousarray(elements[:, -8:]).view("<u8").ravel()
    tail = np.fromfile(path, np.uint8, offset=_HEADER.size + n * element_size)
    _require(len(np.unique(labels)) == n and labels.max() < 1 << 63, "its labels are not distinct")
    _check_links(ground[:, 0] & 0xFFFF, ground[:, 1:], np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64))
    levels, owners, links = _upper_links(tail, n, upper_width)
    _require(entry < n and top == levels.max() and levels[entry] == top, "its entry point is wrong")
    own_level = np.concatenate([np.arange(1, level + 1) for level in levels[levels > 0].tolist()] or [owners])
    _check_links(links[:, 0], links[:, 1:], levels, own_level)
    deleted = (ground[:, 0] & _DELETED).astype(np.bool_)
    return int(n), labels[~deleted].astype(np.int64)


def _upper_links(tail: npt.NDArray[np.uint8], n: int, width: int) -> tuple[IntArray, IntArray, npt.NDArray[np.uint32]]:
    """The links above the ground level.

    Returns:
        Each element's top level, shape (n,); each list's element, shape (lists,); the lists, shape (lists, width).
    """
    content = tail.tobytes()
    levels = np.zeros(n, dtype=np.int64)
    lists, place = [], 0
    for i in range(n):
        _require(place + 4 <= len(content), "its upper levels are incomplete")
        length = int.from_bytes(content[place : place + 4], "little")
        place += 4
        if length:
            _require(length % (4 * width) == 0 and place + length <= len(content), "its upper levels are wrong")
            levels[i] = length // (4 * width)
            lists.append(content[place : place + length])
            place += length
    _require(place == len(content), "it is too long")
    links = np.frombuffer(b"".join(lists), dtype="<u4").reshape(-1, width)
    return levels, np.repeat(np.arange(n), levels), links


def _check_links(
    counts: npt.NDArray[np.integer[Any]], links: npt.NDArray[np.uint32], levels: IntArray, own_level: IntArray
) -> None:
    """Check that every link leads to an element that has the link's level."""
    _require(bool((counts <= links.shape[1]).all()), "it has more links than there is room for")
    used = np.arange(links.shape[1]) < counts[:, None]
    targets = np.where(used, links, 0)
    _require(bool((targets < len(levels)).all()), "it has links to elements that do not exist")
    _require(bool((~used | (levels[targets] >= own_level[:, None])).all()), "it has links to levels that do not exist")


def _require(valid: bool, problem: str) -> None:
    if not valid:
        raise CorruptIndexError(f"the graph file is damaged: {problem}")

"""Writing an hnswlib graph to a file, and reading it.

hnswlib does not look whether its writes succeed, so a file is checked after it is written. When it reads, hnswlib
allocates whatever the header asks for and follows links without checking them. A damaged or forged graph would crash
the process, so a file is also checked before it is read. The check goes piece by piece and needs little memory.

The layout is that of hnswlib 0.8: a header; then for each element its links on the ground level, its vector and its
label; then for each element its links on the levels above.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import hnswlib
import numpy as np
import numpy.typing as npt

from muvera_core.errors import CorruptIndexError, StorageError
from muvera_core.stage_one.graph_parameters import GraphParameters
from muvera_core.stage_one.vector_table import VectorTable
from muvera_core.token_embeddings import IntArray

_HEADER = struct.Struct("<QQQQQQiIQQQdQ")
_DELETED = 1 << 16
# Bytes of elements that are read at a time.
_AT_ONCE = 1 << 24


class GraphContent(NamedTuple):
    """What a graph file holds.

    Attributes:
        labels: label of each element, int64, shape (elements,).
        is_deleted: whether an element is marked as deleted, bool, shape (elements,).
        table: finds elements that are not deleted by their vectors.
        pairs: labels of elements that are not deleted and in one cell of the table.
    """

    labels: IntArray
    is_deleted: npt.NDArray[np.bool_]
    table: VectorTable
    pairs: list[tuple[int, int]]


def write_graph_file(graph: Any, path: Path, parameters: GraphParameters) -> None:
    """Write a graph, given as an ``hnswlib.Index`` that was made with these parameters.

    Raises:
        OSError, StorageError: the file cannot be written completely.
    """
    path.unlink(missing_ok=True)
    graph.save_index(str(path))
    written, expected = path.stat().st_size, graph.index_file_size()
    if written != expected:
        raise StorageError(f"only {written} of {expected} bytes of {path} could be written: free disk space")
    try:
        check_graph_file(path, graph.dim, parameters)
    except CorruptIndexError as error:
        raise StorageError(f"{path} is not as it was written ({error}): check the disk") from error


def read_graph_file(path: Path, dimension: int, parameters: GraphParameters) -> tuple[Any, GraphContent]:
    """Read what ``write_graph_file`` wrote: the ``hnswlib.Index``, and what it holds.

    Raises:
        CorruptIndexError: the file is damaged, or its graph has another width or other parameters.
    """
    content = check_graph_file(path, dimension, parameters)
    graph = hnswlib.Index(space="ip", dim=dimension)
    try:
        graph.load_index(str(path), max_elements=len(content.labels))
    except RuntimeError as error:
        raise CorruptIndexError(f"hnswlib cannot read the graph: {error}") from error
    return graph, content


def check_graph_file(path: Path, dimension: int, parameters: GraphParameters) -> GraphContent:
    """Check that hnswlib can safely load the file as a graph of vectors of this width, made with these parameters.

    Raises:
        CorruptIndexError: the file is damaged, or its graph has another width or other parameters.
    """
    size = path.stat().st_size
    upper_width = parameters.m + 1
    ground_size = 4 * (2 * parameters.m + 1)
    element_size = ground_size + 4 * dimension + 8
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
        _require(len(header) == _HEADER.size, "it is too short")
        level_offset, capacity, n, *layout, top, entry, m, m0, m_again, mult, ef = _HEADER.unpack(header)
        _require(level_offset == 0 and layout == [element_size, element_size - 8, ground_size], "its layout is wrong")
        _require((m, m0, m_again) == (parameters.m, 2 * parameters.m, parameters.m), "its parameters are wrong")
        _require(ef == parameters.ef_construction, "its parameters are wrong")
        _require(math.isclose(mult, 1 / math.log(parameters.m)), "its parameters are wrong")
        _require(
            0 < n <= capacity and n * (element_size + 4) <= size - _HEADER.size, "it holds fewer elements than noted"
        )
        content = _read_elements(file, n, dimension, ground_size)
        tail = file.read()
    _require(len(np.unique(content.labels)) == n and content.labels.min() >= 0, "its labels are not distinct")
    levels, owners, links = _upper_links(tail, n, upper_width)
    _require(entry < n and top == levels.max() and levels[entry] == top, "its entry point is wrong")
    own_level = np.concatenate([np.arange(1, level + 1) for level in levels[levels > 0].tolist()] or [owners])
    used, targets = _used_targets(links, n)
    _require(bool((~used | (levels[targets] >= own_level[:, None])).all()), "it has links to levels that do not exist")
    return content


def _read_elements(file: BinaryIO, n: int, dimension: int, ground_size: int) -> GraphContent:
    """Read the elements and check their links on the ground level."""
    found = GraphContent(np.empty(n, np.int64), np.empty(n, np.bool_), VectorTable(dimension), [])
    element_size = ground_size + 4 * dimension + 8
    at_once = max(1, _AT_ONCE // element_size)
    for start in range(0, n, at_once):
        count = min(at_once, n - start)
        content = file.read(count * element_size)
        _require(len(content) == count * element_size, "it is too short")
        elements = np.frombuffer(content, np.uint8).reshape(count, element_size)
        ground = np.ascontiguousarray(elements[:, :ground_size]).view("<u4")
        _used_targets(ground, n)
        labels, deleted = found.labels[start : start + count], found.is_deleted[start : start + count]
        labels[:] = np.ascontiguousarray(elements[:, -8:]).view("<i8").ravel()
        deleted[:] = (ground[:, 0] & _DELETED) != 0
        vectors = np.ascontiguousarray(elements[:, ground_size:-8]).view("<f4")
        cells = found.table.cells(vectors[~deleted])
        for label, cell in zip(labels[~deleted].tolist(), cells, strict=True):
            found.pairs.extend((label, other) for other in found.table.items(cell)[:1])
            found.table.put(cell, label)
    return found


def _upper_links(content: bytes, n: int, width: int) -> tuple[IntArray, IntArray, npt.NDArray[np.uint32]]:
    """The links above the ground level.

    Returns:
        Each element's top level, shape (n,); each list's element, shape (lists,); the lists, shape (lists, width).
    """
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


def _used_targets(lists: npt.NDArray[np.uint32], n: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint32]]:
    """Check that every link of lists, each a count and links, leads to one of the ``n`` elements.

    Returns:
        Which places of the lists are used, and the elements that they name, 0 in the others.
    """
    counts, links = lists[:, 0] & 0xFFFF, lists[:, 1:]
    _require(bool((counts <= links.shape[1]).all()), "it has more links than there is room for")
    used = np.arange(links.shape[1]) < counts[:, None]
    targets = np.where(used, links, 0)
    _require(bool((targets < n).all()), "it has links to elements that do not exist")
    return used, targets


def _require(valid: bool, problem: str) -> None:
    if not valid:
        raise CorruptIndexError(f"the graph file is damaged: {problem}")

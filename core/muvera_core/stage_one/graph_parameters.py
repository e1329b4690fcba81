"""The parameters with which an hnswlib graph is built."""

from __future__ import annotations

from dataclasses import dataclass

from muvera_core.errors import InvalidInputError
from muvera_core.validation import require_count

# Far above useful values. The limits matter since parameters are read from files and decide on memory and time.
MAX_M = 128
MAX_EF_CONSTRUCTION = 4096


@dataclass(frozen=True)
class GraphParameters:
    """Parameters with which a graph is built, under hnswlib's names.

    Attributes:
        m: most links of an element on each level above the ground level; on the ground level it is twice that. With
            more links a search finds more and takes longer.
        ef_construction: number of nearest elements found so far among which a new element's links are chosen. A larger
            number makes better links and takes longer to build.

    Raises:
        InvalidInputError: hnswlib does not accept a value, or would replace it by another.
    """

    m: int = 16
    ef_construction: int = 200

    def __post_init__(self) -> None:
        # hnswlib scales the random levels by 1 / log(m), and raises ef_construction to m.
        require_count("m", self.m, 2)
        require_count("ef_construction", self.ef_construction, self.m)
        if self.m > MAX_M or self.ef_construction > MAX_EF_CONSTRUCTION:
            raise InvalidInputError(
                f"m must be at most {MAX_M} and ef_construction at most {MAX_EF_CONSTRUCTION}, got {self}"
            )


DEFAULT_GRAPH = GraphParameters()

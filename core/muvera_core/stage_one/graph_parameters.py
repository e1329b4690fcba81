"""How an hnswlib graph is made."""

from __future__ import annotations

from dataclasses import dataclass

from muvera_core.errors import InvalidInputError
from muvera_core.validation import require_count

# Far more than is of use. They are read from files, and decide what a graph takes of memory and time.
MAX_M = 128
MAX_EF_CONSTRUCTION = 4096


@dataclass(frozen=True)
class GraphParameters:
    """What a graph is made with; hnswlib's own names.

    Attributes:
        m: how many links an element has at most on each level above the ground, and half of those it has on it. More
            make a search find more and take longer.
        ef_construction: how many of the nearest found so far the links of a new element are chosen from. More make
            better links and take longer to make.

    Raises:
        InvalidInputError: values that hnswlib doesn't take, or takes for others.
    """

    m: int = 16
    ef_construction: int = 200

    def __post_init__(self) -> None:
        # Levels are drawn by 1 / log(m), and hnswlib chooses from no fewer than m.
        require_count("m", self.m, 2)
        require_count("ef_construction", self.ef_construction, self.m)
        if self.m > MAX_M or self.ef_construction > MAX_EF_CONSTRUCTION:
            raise InvalidInputError(
                f"m must be at most {MAX_M} and ef_construction at most {MAX_EF_CONSTRUCTION}, got {self}"
            )


DEFAULT_GRAPH = GraphParameters()

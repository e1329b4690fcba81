"""What ``optimize`` chose for stage one."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from muvera_core.errors import InvalidInputError
from muvera_core.set_encoders import LearnedSetEncoderConfig
from muvera_core.stage_one.graph_parameters import DEFAULT_GRAPH, GraphParameters
from muvera_core.validation import require_count, shown

_WEIGHTS_NAME = re.compile(r"set_encoder-[0-9a-f]{32}\.weights")
_MAX_CANDIDATES = (1 << 31) - 1
_MAX_MEASURED = 1e15


@dataclass(frozen=True)
class Tuning:
    """What ``optimize`` chose for stage one. It takes the place of the settings that the index was made with.

    Attributes:
        set_encoder: settings of the learned encoder. None if the index's first encoding is kept.
        weights: name of the file with its matrices. None if there is no learned encoder.
        weights_checksum: CRC-32 of that file, or None.
        k: number of hits for which ``optimize`` tuned.
        n_candidates: number of candidates to rerank for ``k`` hits.
        ef: size of the list that a graph search keeps; see ``HnswCandidates``.
        measured: measurements on which the choice is based, by name.
        graph: parameters of the graph.
    """

    set_encoder: LearnedSetEncoderConfig | None
    weights: str | None
    weights_checksum: int | None
    k: int
    n_candidates: int
    ef: int
    measured: dict[str, float]
    graph: GraphParameters = DEFAULT_GRAPH

    def __post_init__(self) -> None:
        for name in ("k", "n_candidates", "ef"):
            require_count(name, getattr(self, name))
        if self.n_candidates > _MAX_CANDIDATES or self.ef > _MAX_CANDIDATES:
            raise InvalidInputError(
                f"n_candidates and ef must be at most {_MAX_CANDIDATES}, got {self.n_candidates} and {self.ef}"
            )
        if self.weights is not None and not _WEIGHTS_NAME.fullmatch(self.weights):
            raise InvalidInputError(f"weights must be the name of a weights file, got {self.weights!r}")
        if type(self.weights_checksum) not in (int, type(None)):
            raise InvalidInputError(f"weights_checksum must be an integer, got {shown(self.weights_checksum)}")
        if not all(type(value) in (int, float) and abs(value) <= _MAX_MEASURED for value in self.measured.values()):
            raise InvalidInputError(f"measured must hold numbers up to {_MAX_MEASURED}, got {shown(self.measured)}")

    def as_json(self) -> dict[str, Any]:
        """The manifest's entry. In it, ``ef`` is named "beam"."""
        content = asdict(self)
        return {("beam" if name == "ef" else name): value for name, value in content.items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Tuning:
        """Parse what ``as_json`` made. Raises InvalidInputError, KeyError or TypeError if it is invalid."""
        settings = content["set_encoder"]
        learned = None if settings is None else LearnedSetEncoderConfig(**settings)
        if (learned is None) != (content["weights"] is None):
            raise InvalidInputError("set_encoder and weights must both be given, or neither")
        graph = GraphParameters(**content.get("graph", {}))  # earlier versions used the default and did not note it
        parsed = {"ef": content["beam"], "set_encoder": learned, "measured": dict(content["measured"]), "graph": graph}
        return cls(**{name: value for name, value in content.items() if name != "beam"} | parsed)

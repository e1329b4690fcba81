"""What an index has learned about its scores, and notes: named values that are committed with its documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from muvera_core.calibration import Calibration
from muvera_core.errors import InvalidInputError
from muvera_core.validation import require_share, shown

# Its name among the named values of the database.
LEARNED_NAME = "learned"


@dataclass(frozen=True)
class LearnedSettings:
    """Settings of searches that were learned from documents and questions, and notes of those who keep the index.

    Attributes:
        calibrations: by mode of search, what turns scores into probabilities of relevance.
        lexical_weight: BM25's share in hybrid searches. None leaves it to each question.
        notes: JSON objects by name; see ``IndexCalls.write_note``. They change no search.

    Raises:
        InvalidInputError: a setting is invalid.
    """

    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    lexical_weight: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for mode, calibration in self.calibrations.items():
            if not isinstance(mode, str) or not isinstance(calibration, Calibration):
                raise InvalidInputError(f"calibrations must map modes to Calibrations, got {shown(self.calibrations)}")
        if self.lexical_weight is not None:
            require_share("lexical_weight", self.lexical_weight)
        object.__setattr__(self, "calibrations", MappingProxyType(dict(self.calibrations)))
        object.__setattr__(self, "notes", MappingProxyType(dict(self.notes)))

    def __reduce__(self) -> tuple[Any, ...]:
        return LearnedSettings, (dict(self.calibrations), self.lexical_weight, dict(self.notes))

    def calibration_of(self, mode: str) -> Calibration | None:
        """The calibration for a mode of search. Hybrid scores are on MaxSim's scale, so mode "late" stands in."""
        return self.calibrations.get(mode, self.calibrations.get("late") if mode == "hybrid" else None)

    def with_calibration(self, mode: str, calibration: Calibration) -> LearnedSettings:
        """These settings, with another calibration for one mode."""
        return replace(self, calibrations={**self.calibrations, mode: calibration})

    def with_note(self, name: str, note: Mapping[str, Any] | None) -> LearnedSettings:
        """These settings, with another note of that name; None removes it."""
        others = {each: content for each, content in self.notes.items() if each != name}
        return replace(self, notes=others if note is None else {**others, name: dict(note)})

    def as_text(self) -> str:
        """The settings as JSON, for the database."""
        calibrations = {mode: calibration.as_json() for mode, calibration in self.calibrations.items()}
        content = {"calibrations": calibrations, "lexical_weight": self.lexical_weight, "notes": dict(self.notes)}
        return json.dumps(content)

    @classmethod
    def from_text(cls, text: Any) -> LearnedSettings:
        """Parse what ``as_text`` made; None, if nothing was ever stored, gives empty settings.

        Raises:
            InvalidInputError: the text is damaged.
        """
        if text is None:
            return cls()
        try:
            content = json.loads(text)
            calibrations = {mode: Calibration.from_json(each) for mode, each in content["calibrations"].items()}
            return cls(calibrations, content.get("lexical_weight"), dict(content.get("notes", {})))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InvalidInputError(f"the learned settings are damaged ({error!r})") from error

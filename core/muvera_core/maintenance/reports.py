"""What a check found and what a repair did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Ids that a problem's text names at most.
_NAMED = 20


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with an index.

    Attributes:
        file: name of the damaged file.
        message: what is wrong.
        ids: of the documents concerned, where that is known.
        derived: whether it is only something that is made from the documents, so that nothing is lost.
    """

    file: str
    message: str
    ids: tuple[str, ...] = ()
    derived: bool = False

    def __str__(self) -> str:
        named = ", ".join(map(repr, self.ids[:_NAMED])) + (", …" if len(self.ids) > _NAMED else "")
        return f"{self.file}: {self.message}{f' ({named})' if self.ids else ''}"


@dataclass(frozen=True)
class IndexReport:
    """What ``check_index`` found.

    Attributes:
        path: the index's folder.
        n_documents: how many documents are whole.
        problems: everything that is wrong.
    """

    path: Path
    n_documents: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        state = "no damage" if self.ok else "DAMAGED"
        lines = [f"{self.path}: {state}, {self.n_documents} documents are whole"]
        return "\n".join(lines + [f"  {problem}" for problem in self.problems])


@dataclass(frozen=True)
class RepairReport:
    """What ``repair_index`` did.

    Attributes:
        path: the index's folder.
        n_documents: how many documents it has now.
        reencoded: ids of those whose tokens were lost and made again from their text.
        lost: ids, or internal numbers, of those that aren't in the index any more.
        quarantine: folder with the damaged files and what is left of the lost documents; None if none was lost.
    """

    path: Path
    n_documents: int
    reencoded: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    quarantine: Path | None = None

    def __str__(self) -> str:
        text = f"{self.path}: {self.n_documents} documents are whole, {len(self.reencoded)} of them encoded again"
        return text + (f"; {len(self.lost)} are lost, see {self.quarantine}" if self.lost else "")

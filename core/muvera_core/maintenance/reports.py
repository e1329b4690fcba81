"""The results of a check and of a repair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from muvera_core.validation import counted

# Most ids that a problem's text names.
_MAX_NAMED_IDS = 20


@dataclass(frozen=True)
class Problem:
    """A problem of an index.

    Attributes:
        file: name of the damaged file.
        message: what is wrong.
        ids: ids of the documents concerned, if they are known.
        derived: whether the damaged data is derived from the documents, so that nothing is lost.
    """

    file: str
    message: str
    ids: tuple[str, ...] = ()
    derived: bool = False

    def __str__(self) -> str:
        named = ", ".join(map(repr, self.ids[:_MAX_NAMED_IDS])) + (", …" if len(self.ids) > _MAX_NAMED_IDS else "")
        return f"{self.file}: {self.message}{f' ({named})' if self.ids else ''}"


@dataclass(frozen=True)
class IndexReport:
    """What ``check_index`` found.

    Attributes:
        path: the index's folder.
        n_documents: number of intact documents.
        problems: all problems.
    """

    path: Path
    n_documents: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def __str__(self) -> str:
        state = "no damage" if self.ok else "DAMAGED"
        lines = [f"{self.path}: {state}, {counted(self.n_documents, 'intact document')}"]
        return "\n".join(lines + [f"  {problem}" for problem in self.problems])


@dataclass(frozen=True)
class RepairReport:
    """What ``repair_index`` did.

    Attributes:
        path: the index's folder.
        n_documents: number of documents in the index now.
        reencoded: ids of the documents whose tokens were lost and made again from their text.
        lost: ids, or internal numbers, of the documents that are no longer in the index.
        quarantine: folder with the damaged files and what is left of the lost documents. None if no document was lost.
    """

    path: Path
    n_documents: int
    reencoded: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    quarantine: Path | None = None

    def __str__(self) -> str:
        text = (
            f"{self.path}: {counted(self.n_documents, 'intact document')}, {len(self.reencoded)} of them encoded again"
        )
        return text + (f"; {counted(len(self.lost), 'document')} lost, see {self.quarantine}" if self.lost else "")

"""What syncing is doing, and what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from muvera_core.corpus import Reading, Unusable

# The kind of a file that no reader is for. Its suffix says enough.
_UNKNOWN = "unknown type"
# The kind of a file whose reader is not installed.
_NEEDS = "needs "
# Most reasons and types that are counted apart.
_LABELS = 12


@dataclass(frozen=True)
class SyncProgress:
    """How far syncing has come.

    Attributes:
        stage: "reading" counts files, "indexing" documents that are saved.
        done: how many are done.
        total: how many there are. None if that is not known.
        path: the name of the file that was done last. Empty at the beginning.
    """

    stage: Literal["reading", "indexing"]
    done: int
    total: int | None
    path: str = ""


@dataclass(frozen=True)
class SyncReport:
    """What syncing did. Documents are passages, if texts are split.

    Attributes:
        added: documents that are new.
        replaced: documents whose text, image or metadata changed.
        unchanged: documents that stay as they were.
        deleted: documents that went away with their files, or with the part of a file.
        ignored: files, and lines of files, that could not be used.
        reused: of those that were added or replaced, how many were not encoded, because the index had their text under
            another id. A file that was moved is such a case.
        n_files: files that have documents.
        reading: how the files were read.
        seconds: how long it took.
    """

    added: int
    replaced: int
    unchanged: int
    deleted: int
    ignored: Sequence[Unusable]
    reused: int
    n_files: int
    reading: Reading
    seconds: float

    def __str__(self) -> str:
        counts = {
            "added": self.added,
            "replaced": self.replaced,
            "unchanged": self.unchanged,
            "deleted": self.deleted,
        }
        text = ", ".join(f"{n:,} {what}" for what, n in counts.items() if n) or "no documents"
        text += f" in {self.seconds:.1f} s, from {self.n_files:,} file{'' if self.n_files == 1 else 's'}"
        text += f" ({self.reused:,} not encoded again)" if self.reused else ""
        return text + (f"; ignored: {count_ignored(self.ignored)}" if self.ignored else "")


def count_ignored(entries: Iterable[Unusable]) -> str:
    """How many files and lines could not be used, by reason and type, such as "3 .xyz, 1 empty .txt"."""
    counts = Counter(_label(entry) for entry in entries)
    listed = [f"{n:,} {label}" for label, n in counts.most_common(_LABELS)]
    rest = sum(n for _, n in counts.most_common()[_LABELS:])
    return ", ".join([*listed, *([f"{rest:,} others"] if rest else [])])


def _label(entry: Unusable) -> str:
    suffix = entry.file.path.suffix.lower() or "without a suffix"
    if entry.kind.startswith(_UNKNOWN):
        return suffix
    if entry.kind.startswith(_NEEDS):
        return f"{suffix} ({entry.kind})"
    return f"{entry.kind} {suffix}" + ("" if entry.line is None else " entry")

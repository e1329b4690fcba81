"""Counts what became of documents, in workers and in sum."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from muvera_core.corpus import Unusable, as_unicode
from muvera_core.validation import counted

# Most problems that are described. All of them are counted.
_DESCRIBED = 100


@dataclass(frozen=True)
class BuildReport:
    """What ``build`` did.

    Attributes:
        n_read: documents in the sources, without what could not be used.
        n_encoded: documents that were encoded and written.
        n_updated: documents of which only the metadata were written.
        n_unchanged: documents that the index had already.
        skipped: files and lines that were not used, and duplicates of an id, counted by file.
        problems: what is wrong with 100 of them at most: "file:line: reason".
        n_tokens: token vectors of the encoded documents.
        seconds: time by stage ("looking", "comparing", "encoding", "writing"), added up over all workers.
        total_seconds: time from start to end.
    """

    n_read: int
    n_encoded: int
    n_updated: int
    n_unchanged: int
    skipped: Mapping[str, int]
    problems: tuple[str, ...]
    n_tokens: int
    seconds: Mapping[str, float]
    total_seconds: float

    @property
    def n_skipped(self) -> int:
        """Number of files, lines and documents that were not used."""
        return sum(self.skipped.values())

    def __str__(self) -> str:
        return (
            f"{counted(self.n_read, 'document')} read: {self.n_encoded} encoded, {self.n_updated} updated, "
            f"{self.n_unchanged} unchanged; {self.n_skipped} skipped; {self.total_seconds:.1f} s"
        )


@dataclass
class Tally:
    """Counts of a part of the documents; see ``BuildReport`` for the attributes.

    Attributes:
        n_bad: how many of those that were skipped are not just blank.
        bad: what is wrong with the first of these.
        blank: the first of those that are just blank.
    """

    n_read: int = 0
    n_encoded: int = 0
    n_updated: int = 0
    n_unchanged: int = 0
    n_tokens: int = 0
    n_bad: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    seconds: Counter[str] = field(default_factory=Counter)

    @property
    def n_done(self) -> int:
        """Documents that the index holds now as the sources have them."""
        return self.n_encoded + self.n_updated + self.n_unchanged

    @property
    def n_skipped(self) -> int:
        """Files, lines and documents that were not used."""
        return sum(self.skipped.values())

    def skip(self, entry: Unusable) -> None:
        """Count what is not used."""
        self.skipped[as_unicode(str(entry.file.path))] += 1
        self.n_bad += not entry.is_blank
        described = self.blank if entry.is_blank else self.bad
        if len(described) < _DESCRIBED:
            described.append(str(entry))

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Count the time of the block."""
        started = perf_counter()
        yield
        self.seconds[stage] += perf_counter() - started  # type: ignore[assignment]

    def add(self, other: Tally) -> None:
        """Add the counts of another part."""
        for name in ("n_read", "n_encoded", "n_updated", "n_unchanged", "n_tokens", "n_bad"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.skipped.update(other.skipped)
        self.seconds.update(other.seconds)
        self.bad += other.bad[: _DESCRIBED - len(self.bad)]
        self.blank += other.blank[: _DESCRIBED - len(self.blank)]

    def report(self, total_seconds: float) -> BuildReport:
        """The counts as a report."""
        return BuildReport(
            self.n_read,
            self.n_encoded,
            self.n_updated,
            self.n_unchanged,
            dict(self.skipped),
            tuple((self.bad + self.blank)[:_DESCRIBED]),
            self.n_tokens,
            dict(self.seconds),
            total_seconds,
        )

    def to_json(self) -> str:
        """The counts as text that ``from_json`` reads."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> Tally:
        """The counts that ``to_json`` wrote."""
        content = json.loads(text)
        return cls(**{**content, **{name: Counter(content[name]) for name in ("skipped", "seconds")}})

"""What is being done with a file, told while it is done."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Stage = Literal["saving", "waiting", "reading", "indexing", "learning", "done", "unusable"]


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used.

    Attributes:
        name: its name.
        reason: why, and what to do.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Progress:
    """How far a file is.

    Attributes:
        name: the file's name.
        stage: what is being done; "done" and "unusable" end it.
        done: passages that are indexed, or files that are read.
        total: how many there will be. None if it is not known.
        said: at the end, what came of it.
    """

    name: str
    stage: Stage
    done: int = 0
    total: int | None = None
    said: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be done."""
        return self.stage in ("done", "unusable")


def reporting(work: Callable[[Callable[[Progress], None]], Progress]) -> Iterator[Progress]:
    """Do some work in a thread, and yield what it reports until it is done.

    If nobody wants to know any more, the work goes on all the same: a user who closes the page has uploaded the file.

    Args:
        work: gets a function to report with, and returns the last report. What it raises is raised here.
    """
    reports: queue.Queue[Progress | BaseException | None] = queue.Queue()

    def run() -> None:
        try:
            reports.put(work(reports.put))
        except BaseException as error:
            reports.put(error)
        finally:
            reports.put(None)

    threading.Thread(target=run, name="muvera-chat-indexing", daemon=True).start()
    while (report := reports.get()) is not None:
        if isinstance(report, BaseException):
            raise report
        yield report

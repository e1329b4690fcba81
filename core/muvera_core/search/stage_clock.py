"""Measures the time that each stage of a search takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from muvera_core.validation import require_unicode


class StageClock:
    """Adds up the seconds of each stage over any number of searches.

    Example:
        >>> clock = StageClock()
        >>> with clock.stage("rerank"):
        ...     pass
        >>> list(clock.seconds)
        ['rerank']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of this block to ``name``."""
        name = require_unicode("name", name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

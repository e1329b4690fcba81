"""Counts requests and measures their times, for Prometheus.

With several worker processes, each writes its numbers to files in one folder, and whichever is asked adds them up. A
worker that takes the place of a dead one goes on with its files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from muvera_core.errors import MissingExtraError
from muvera_core.index import IndexCalls
from muvera_core.serving.guards import CALLS

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

# Where prometheus-client keeps the files of several workers.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_OTHER = "other"


class Metrics:
    """The numbers of one worker process, or of all of them if they share a folder."""

    def __init__(self, calls: Collection[str], *, folder: str | None = None, worker: str = "") -> None:
        """Start counting.

        Args:
            calls: names of the calls that are counted by name. Other requests are counted as "other", so that nobody
                can make names up.
            folder: the folder that several workers share. None counts for this process alone.
            worker: this worker's name, by which its files are found again.

        Raises:
            MissingExtraError: prometheus-client is not installed.
        """
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
        except ImportError as error:
            raise MissingExtraError("metrics need prometheus-client: run pip install 'muvera-core[serve]'") from error
        self._calls, self._folder = frozenset(calls), folder
        self._registry: CollectorRegistry = CollectorRegistry()
        if folder is not None:
            os.environ[FOLDER] = folder
            # Only what is made after this uses it.
            values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]
        own: dict[str, Any] = {"registry": self._registry}
        live: dict[str, Any] = {**own, "multiprocess_mode": "livesum"}
        newest: dict[str, Any] = {**own, "multiprocess_mode": "livemostrecent"}
        self._requests = Counter("muvera_requests", "Requests, by call and HTTP status.", ["call", "status"], **own)
        self._seconds = Histogram(
            "muvera_request_seconds", "Time from a request to its answer.", ["call"], buckets=_SECONDS, **own
        )
        self._stages = Counter("muvera_search_stage_seconds", "Time of searches in each stage.", ["stage"], **own)
        self._in_flight = Gauge("muvera_requests_in_flight", "Requests that are being answered.", **live)
        self._waiting = Gauge("muvera_requests_waiting", "Of these, requests that wait for a place.", **live)
        self._documents = Gauge("muvera_documents", "Documents in the index.", **newest)
        self._tokens = Gauge("muvera_tokens", "Token vectors in the index.", **newest)
        self._read_at = Gauge("muvera_index_read_timestamp_seconds", "When the two numbers were read.", **newest)
        Gauge(
            "muvera_process_start_timestamp_seconds",
            "When the process started to serve.",
            **own,
            multiprocess_mode="liveall",
        ).set(time.time())

    def began(self) -> None:
        """A request came."""
        self._in_flight.inc()

    def ended(self, path: str, status: int, seconds: float) -> None:
        """It was answered."""
        self._in_flight.dec()
        name = path.removeprefix(CALLS)
        name = name if name in self._calls else _OTHER
        self._requests.labels(name, status).inc()
        self._seconds.labels(name).observe(seconds)

    def waits(self, change: int) -> None:
        """One more (1) or one less (-1) request waits for a place."""
        self._waiting.inc(change)

    def searched(self, seconds: Mapping[str, float]) -> None:
        """Count the seconds of each stage of a search; see ``StageClock``."""
        for stage, spent in seconds.items():
            self._stages.labels(stage).inc(spent)

    def show(self, index: IndexCalls) -> tuple[bytes, str]:
        """All numbers, and their content type.

        Args:
            index: the index, whose documents and tokens are counted now.
        """
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        self._documents.set(len(index))
        self._tokens.set(index.n_tokens)
        self._read_at.set(time.time())
        if self._folder is None:
            return generate_latest(self._registry), CONTENT_TYPE_LATEST
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST


def forget_live_numbers(folder: str, worker: str) -> None:
    """Forget what a dead worker was doing. What it had counted stays."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker, folder)  # type: ignore[no-untyped-call]

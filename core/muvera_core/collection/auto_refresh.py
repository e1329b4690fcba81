"""Lets an index that was opened for reading take in new commits by itself."""

from __future__ import annotations

import logging
import threading
import time

from muvera_core.collection.collection import Collection
from muvera_core.collection.refreshing import refresh

_log = logging.getLogger(__name__)


class AutoRefresh:
    """Looks for new commits at the start of a read, at most once in an interval.

    The read that finds some takes them in first. Other reads go on with the present snapshot meanwhile. If every read
    looks, they wait instead, because one of the commits may have been acknowledged before they began.
    """

    def __init__(self, collection: Collection, interval: float | None) -> None:
        """Look after a collection.

        Args:
            collection: the index. One that is open for writing is always up to date.
            interval: seconds between two looks; 0 looks at every read, None never looks.
        """
        self._collection = collection
        self.interval = interval if collection.read_only else None
        self._next = 0.0 if interval is None else time.monotonic() + interval
        self._one_at_a_time = threading.Lock()

    def refresh_if_due(self) -> None:
        """Take in new commits if it is time to look for them.

        If that fails, reads go on with the present snapshot, the log says so, and the next look tries again.
        """
        if self.interval is None or time.monotonic() < self._next:
            return
        every_time = self.interval == 0
        if not self._one_at_a_time.acquire(blocking=every_time):
            return
        try:
            if not self._collection.is_current(waits=every_time):
                refresh(self._collection)
        except Exception as error:
            self._collection.require_open()
            _log.warning("%s cannot take in new commits and answers from earlier ones: %s", self._folder, str(error))
        finally:
            self._next = time.monotonic() + self.interval
            self._one_at_a_time.release()

    @property
    def _folder(self) -> str:
        return str(self._collection.folder)

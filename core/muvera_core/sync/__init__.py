"""Keeps an index in step with files: reads them, compares, and writes only what differs.

``known`` (what the index has) and files → ``plan`` (what differs) → ``missing`` (what goes away, and whether that is
plausible) → ``write`` → ``seals`` (which files are done). ``sync_files`` takes these steps.
"""

from __future__ import annotations

from muvera_core.sync.remembered import READING_NOTE, recall_reading
from muvera_core.sync.report import SyncProgress, SyncReport, count_ignored
from muvera_core.sync.syncing import sync_files

__all__ = ["READING_NOTE", "SyncProgress", "SyncReport", "count_ignored", "recall_reading", "sync_files"]

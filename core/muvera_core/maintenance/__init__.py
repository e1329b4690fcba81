"""Checks, repairs or describes an index that is not open, or brings it up to date from an older format."""

from __future__ import annotations

from muvera_core.maintenance.check import check_index
from muvera_core.maintenance.info import IndexInfo, read_info
from muvera_core.maintenance.migrations import migrate_index
from muvera_core.maintenance.repair import repair_index
from muvera_core.maintenance.reports import IndexReport, RepairReport

__all__ = ["IndexInfo", "IndexReport", "RepairReport", "check_index", "migrate_index", "read_info", "repair_index"]

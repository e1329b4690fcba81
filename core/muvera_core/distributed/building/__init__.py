"""Builds an index from files, with all machines of a cluster.

Sources are divided into units. Workers first look through them, and find what cannot be used and which ids occur twice.
Then they read again, ask the index what it has already, and encode and write the rest, one block after the other.
"""

from __future__ import annotations

from muvera_core.distributed.building.build import build
from muvera_core.distributed.building.tally import BuildReport

__all__ = ["BuildReport", "build"]

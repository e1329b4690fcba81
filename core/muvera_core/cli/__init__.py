"""The command line program ``muvera``, which builds, searches and maintains indexes."""

from __future__ import annotations

from muvera_core.cli.program import main

__all__ = ["main"]

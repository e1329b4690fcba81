"""The command line program ``muvera``."""

from __future__ import annotations

from muvera_core.cli.program import main

__all__ = ["main"]

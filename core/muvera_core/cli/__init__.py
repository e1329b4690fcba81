"""The command ``muvera``."""

from __future__ import annotations

from muvera_core.cli.commands import main

__all__ = ["main"]

"""The command line program ``muvera``, which builds, searches and maintains indexes.

Other distributions add commands by entry points of the group ``muvera.commands``. They make them of the same options.
"""

from __future__ import annotations

from muvera_core.cli.group import say
from muvera_core.cli.options import DEVICE, ENCODER, ENCODER_DEVICE, load_encoder, progress_bar
from muvera_core.cli.program import main

__all__ = ["DEVICE", "ENCODER", "ENCODER_DEVICE", "load_encoder", "main", "progress_bar", "say"]

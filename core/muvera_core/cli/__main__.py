"""``python -m muvera_core.cli``, for when the command ``muvera`` is not on the path."""

from __future__ import annotations

from muvera_core.cli.program import main

main(prog_name="muvera")

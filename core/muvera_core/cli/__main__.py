"""``python -m muvera_core.cli``, where the command isn't on the path."""

from __future__ import annotations

from muvera_core.cli.commands import main

main(prog_name="muvera")

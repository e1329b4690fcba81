"""docs/how-it-works.md has every room of the core in its table, and no other."""

from __future__ import annotations

import re

from markdown_pages import ROOT

CORE = ROOT / "core" / "muvera_core"
# Files without a room of their own: what the package exports, and small helpers.
NO_ROOMS = {"__init__.py", "py.typed", "__pycache__"}


def test_the_table_of_rooms_is_complete() -> None:
    text = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    table = text[text.index("| room | what happens in it |") :].split("\n\n")[0]
    named = {name.strip("/") for row in table.splitlines() for name in re.findall(r"`([\w./]+)`", row.split("|")[1])}
    there = {path.name for path in CORE.iterdir()} - NO_ROOMS
    assert named == there

"""Writes tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A table, of which the first row is the head."""
    if not rows:
        return ""
    head, *body = [f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join([head, f"|{'---|' * len(rows[0])}", *body])

"""Limits that keep a file that is not what its name says from filling the memory."""

from __future__ import annotations

# Size limit of one document. It is a hundred times what an encoder reads, so a higher limit would help nobody.
MAX_TEXT_BYTES = 1 << 24

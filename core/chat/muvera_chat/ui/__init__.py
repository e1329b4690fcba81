"""The page in the browser: a conversation, the documents beside it, and the server that shows them.

The page loads nothing from other hosts, and its headers forbid it to.
"""

from __future__ import annotations

from muvera_chat.ui.page import make_page
from muvera_chat.ui.service import make_app, serve

__all__ = ["make_app", "make_page", "serve"]

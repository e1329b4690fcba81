"""Makes the HTML of turns and of documents. All text of documents, file names, questions and models is escaped."""

from __future__ import annotations

from muvera_chat.rendering.documents_html import files_html, progress_html
from muvera_chat.rendering.turn_html import NOT_FOUND, turn_html

__all__ = ["NOT_FOUND", "files_html", "progress_html", "turn_html"]

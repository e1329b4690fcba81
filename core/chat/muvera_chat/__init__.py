"""A chatbot in the browser over your documents: cited answers, and which words of a passage matched the question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muvera_chat.answering import Answerer, AnsweringSettings, Conversation, Quote, Source, Turn
from muvera_chat.documents import Library, UploadLimits, Uploads
from muvera_chat.models import load_model

if TYPE_CHECKING:
    from muvera_chat.ui import make_app, make_page, serve


__all__ = [
    "Answerer",
    "AnsweringSettings",
    "Conversation",
    "Library",
    "Quote",
    "Source",
    "Turn",
    "UploadLimits",
    "Uploads",
    "load_model",
    "make_app",
    "make_page",
    "serve",
]


def __getattr__(name: str) -> Any:
    # Gradio takes seconds to import, and answering does not need it.
    if name in ("make_app", "make_page", "serve"):
        from muvera_chat import ui

        return getattr(ui, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

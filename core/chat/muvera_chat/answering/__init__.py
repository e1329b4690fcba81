"""Answers questions from an index: condenses a follow-up question, finds passages, and quotes or generates an answer.

Nothing here knows of a browser. ``Answerer.ask`` yields a ``Turn`` whenever the answer has grown.
"""

from __future__ import annotations

from muvera_chat.answering.answerer import Answerer
from muvera_chat.answering.citations import CITATION, cited_numbers, numbers_in
from muvera_chat.answering.conversation import Conversation, Quote, Turn
from muvera_chat.answering.settings import AnsweringSettings
from muvera_chat.answering.sources import Source

__all__ = [
    "CITATION",
    "Answerer",
    "AnsweringSettings",
    "Conversation",
    "Quote",
    "Source",
    "Turn",
    "cited_numbers",
    "numbers_in",
]

"""What belongs to one open page: its user's conversation, as it was said and as it is shown."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from muvera_chat.answering import Answerer, Conversation, Turn
from muvera_chat.rendering import turn_html

# Seconds between two showings of an answer that grows. Each is sent whole.
_PAUSE = 0.08
STOPPED = "stopped"


class Session:
    """What one open page shows: a conversation, until its user begins another. Gradio keeps one for each page.

    Attributes:
        shown: the conversation.
    """

    # No dataclass, here and below: Gradio would write its fields into the page.

    def __init__(self) -> None:
        self.shown = ShownConversation()

    def start_again(self) -> None:
        """Begin another conversation. Nothing of the one before is shown any more."""
        self.shown.is_abandoned = True
        self.shown = ShownConversation()


class ShownConversation:
    """A conversation and its HTML.

    Attributes:
        conversation: the complete turns.
        turns: the HTML of each complete turn.
        is_stopping: whether the user wants the answer that is being written to end.
        is_abandoned: whether the user has begun another conversation.
        is_answering: whether an answer is being written.
    """

    _lock = threading.Lock()  # guards `is_answering`, of all conversations: it is held for an instant

    def __init__(self) -> None:
        self.conversation = Conversation()
        self.turns: list[str] = []
        self.is_stopping = self.is_abandoned = self.is_answering = False

    @property
    def is_new(self) -> bool:
        """Whether nothing has been asked."""
        return not self.turns and not self.is_answering

    def ask(self, answerer: Answerer, question: str) -> Iterator[str]:
        """Answer a question. Yields the HTML of the turn as it grows, and at last whole.

        Yields nothing while another answer is being written. Ends early if the conversation is abandoned.
        """
        with self._lock:
            if self.is_answering:
                return
            self.is_answering = True
        try:
            yield from self._grow(answerer, question)
        finally:
            self.is_answering = False
        if not self.is_abandoned:
            yield self.turns[-1]  # who sees it may ask at once

    def _grow(self, answerer: Answerer, question: str) -> Iterator[str]:
        """Write an answer and keep it. Yields its turn until it is whole."""
        self.is_stopping = False
        key = secrets.token_hex(4)
        shown_at = 0.0
        turn = Turn(question, "")
        for turn in answerer.ask(question, self.conversation):
            if self.is_abandoned:
                return
            if self.is_stopping and not turn.is_complete:
                turn = replace(turn, status="failed", problem=STOPPED)
                break
            if not turn.is_complete and time.monotonic() - shown_at > _PAUSE:
                yield turn_html(turn, answerer.index, key)
                shown_at = time.monotonic()
        self.conversation.turns.append(turn)
        self.turns.append(turn_html(turn, answerer.index, key))

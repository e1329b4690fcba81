"""What belongs to one open page: a user's conversation, as it was said and as it is shown."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import replace

from muvera_chat.answering import Answerer, Conversation, Turn
from muvera_chat.rendering import turn_html

# Seconds between two showings of an answer that grows. Each is sent whole.
_PAUSE = 0.08
STOPPED = "stopped"


class Session:
    """The conversation of one page. Gradio keeps one for each page that is open.

    Attributes:
        conversation: the complete turns.
        shown: the HTML of each turn that is over.
        is_stopping: whether the user wants the answer that is being written to end.
        is_abandoned: whether the user has begun another conversation, so that nothing of this one may be shown.
    """

    # No dataclass: Gradio would write its fields into the page.

    def __init__(self) -> None:
        self.conversation = Conversation()
        self.shown: list[str] = []
        self.is_stopping = self.is_abandoned = False

    def past(self) -> str:
        """The HTML of all turns that are over."""
        return "".join(self.shown)

    def ask(self, answerer: Answerer, question: str) -> Iterator[str]:
        """Answer a question. Yields the HTML of the turn as it grows, and at last whole."""
        self.is_stopping = False
        key = secrets.token_hex(4)
        shown_at = 0.0
        turn = Turn(question, "")
        answering = answerer.ask(question, self.conversation)
        for turn in answering:
            if self.is_abandoned:
                return
            if self.is_stopping and not turn.is_complete:
                turn = replace(turn, status="failed", problem=STOPPED)
                break
            if not turn.is_complete and time.monotonic() - shown_at > _PAUSE:
                yield turn_html(turn, answerer.index, key)
                shown_at = time.monotonic()
        self.conversation.turns.append(turn)
        self.shown.append(turn_html(turn, answerer.index, key))
        yield self.shown[-1]

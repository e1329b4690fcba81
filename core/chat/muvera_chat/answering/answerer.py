"""Answers a question, step by step."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

from langchain_core.language_models import BaseChatModel

from muvera_chat.answering.conversation import Conversation, Status, Turn
from muvera_chat.answering.following_up import condensed, with_words_before
from muvera_chat.answering.generating import messages_for, stream_text
from muvera_chat.answering.quoting import quote
from muvera_chat.answering.settings import AnsweringSettings
from muvera_chat.answering.sources import explained, find_sources
from muvera_core import IndexCalls, MuveraError

_LOG = logging.getLogger(__name__)


class Answerer:
    """Answers questions from an index. Any number of threads may ask.

    >>> from muvera_core import MuveraIndex
    >>> with MuveraIndex.create(None) as index:
    ...     _ = index.add(["Ants live in colonies.", "Owls hunt at night."], ids=["ant", "owl"])
    ...     *_, turn = Answerer(index).ask("Which bird hunts at night?", Conversation())
    >>> turn.answer
    'Owls hunt at night. [1]'
    """

    def __init__(
        self, index: IndexCalls, model: BaseChatModel | None = None, settings: AnsweringSettings | None = None
    ) -> None:
        """Make an answerer.

        Args:
            index: the documents. Its encoder must be known.
            model: writes the answers. None quotes sentences of the documents instead.
            settings: how questions are answered.
        """
        self.index, self.model = index, model
        self.settings = settings or AnsweringSettings()

    def ask(self, question: str, conversation: Conversation) -> Iterator[Turn]:
        """Answer a question.

        Args:
            question: what the user asks.
            conversation: the turns before. It is not changed.

        Yields:
            The turn as it grows. The last one is complete. What goes wrong is said in it, not raised.
        """
        turn = Turn(question[: self.settings.max_question], "")
        try:
            for grown in self._steps(turn, conversation.remembered(self.settings.n_remembered)):
                turn = grown
                yield turn
        except MuveraError as error:
            yield replace(turn, status="failed", problem=str(error))

    def _steps(self, turn: Turn, before: Sequence[Turn]) -> Iterator[Turn]:
        yield turn
        try:
            query = self._query(turn.question, before)
        except Exception as error:  # a model's library may raise anything
            yield self._failed(turn, error)
            return
        found = find_sources(self.index, query, self.settings)
        turn = replace(turn, query=query, sources=found.sources)
        if not found.is_answer:
            yield self._complete(turn, "not_found")
        elif self.model is None:
            # The question before has only helped to find the passages.
            quotes = tuple(quote(self.index.encoder, turn.question, found.sources))
            yield self._complete(replace(turn, quotes=quotes), "answered" if quotes else "not_found")
        else:
            yield from self._generate(self.model, turn, before)

    def _query(self, question: str, before: Sequence[Turn]) -> str:
        if self.model is None:
            return with_words_before(question, before)
        return condensed(self.model, question, before)

    def _generate(self, model: BaseChatModel, turn: Turn, before: Sequence[Turn]) -> Iterator[Turn]:
        turn = replace(turn, status="writing")
        yield turn
        try:
            for text in stream_text(model, messages_for(turn.question, turn.query, turn.sources, before)):
                turn = replace(turn, text=text)
                yield turn
        except Exception as error:  # a model's library may raise anything
            yield self._failed(self._complete(turn, "failed"), error)
            return
        if turn.text.strip():
            yield self._complete(turn, "answered")
        else:
            yield replace(self._complete(turn, "failed"), problem="the model wrote nothing: ask again")

    def _complete(self, turn: Turn, status: Status) -> Turn:
        """The turn with the matches of its sources."""
        sources = tuple(explained(self.index, turn.query, source) for source in turn.sources)
        return replace(turn, status=status, sources=sources)

    def _failed(self, turn: Turn, error: Exception) -> Turn:
        _LOG.warning("the model failed", exc_info=error)
        return replace(turn, status="failed", problem=f"the model failed ({type(error).__name__}: {error})"[:500])

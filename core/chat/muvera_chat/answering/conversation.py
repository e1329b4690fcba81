"""What was asked and answered so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from muvera_chat.answering.citations import cited_numbers
from muvera_chat.answering.sources import Source

Status = Literal["searching", "writing", "answered", "not_found", "failed"]


@dataclass(frozen=True)
class Quote:
    """A sentence of a source, word for word.

    Attributes:
        text: the sentence.
        number: number of the source.
    """

    text: str
    number: int


@dataclass(frozen=True)
class Turn:
    """A question and its answer, as far as it is known.

    Attributes:
        question: what the user asked.
        query: what was searched for: the question, made understandable without the conversation.
        status: "searching" and "writing" until the answer is complete. Then "answered"; "not_found" if the documents do
            not seem to answer the question; or "failed", and ``problem`` says why.
        text: the answer of a model, in Markdown, with citations such as [1].
        quotes: the answer if there is no model: sentences of the sources.
        sources: the passages that the answer was made from, or the nearest ones that were found.
        problem: why the answer is missing or incomplete. None if it is complete.
    """

    question: str
    query: str
    status: Status = "searching"
    text: str = ""
    quotes: tuple[Quote, ...] = ()
    sources: tuple[Source, ...] = ()
    problem: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing more will come."""
        return self.status not in ("searching", "writing")

    @property
    def answer(self) -> str:
        """The answer as plain text."""
        return self.text or " ".join(f"{quote.text} [{quote.number}]" for quote in self.quotes)

    @property
    def cited(self) -> list[int]:
        """The numbers of the sources that the answer cites, in the order in which it does."""
        if self.quotes:
            return list(dict.fromkeys(quote.number for quote in self.quotes))
        return cited_numbers(self.text, len(self.sources))


@dataclass
class Conversation:
    """The turns of one user, oldest first."""

    turns: list[Turn] = field(default_factory=list)

    def remembered(self, n: int) -> list[Turn]:
        """The last ``n`` turns that have an answer."""
        answered = [turn for turn in self.turns if turn.status == "answered"]
        return answered[len(answered) - n :] if n < len(answered) else answered

"""Makes a follow-up question understandable without the conversation, so that it can be searched for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage

from muvera_chat.answering.conversation import Turn
from muvera_chat.answering.text_of import text_of

_POINTS_BACK = re.compile(
    r"\b(it|its|they|them|their|theirs|he|him|his|she|her|hers|this|that|these|those|there|then|ones?)\b", re.IGNORECASE
)
_GOES_ON = re.compile(r"(and|but|or|also|then|why|what about|how about|how so)\b", re.IGNORECASE)
_WORD = re.compile(r"\w+")
# A question of so few words, such as "why?" or "in winter?", says too little to be searched for alone.
_FEW_WORDS = 2
_MAX_CHARACTERS = 500
_MAX_OF_ANSWER = 600

_INSTRUCTION = (
    "Rewrite the last question so that it can be understood without the conversation. Keep its language. Replace "
    "pronouns by what they stand for. If it can be understood already, repeat it. Write the question only."
)


def points_back(question: str) -> bool:
    """Whether a question seems to need the one before it: it is very short, has a pronoun, or begins with "and".

    The words are English ones. In other languages only very short questions are recognized.

    >>> points_back("And where do they nest?"), points_back("Where do barn owls nest?")
    (True, False)
    """
    words = _WORD.findall(question)
    return len(words) <= _FEW_WORDS or bool(_POINTS_BACK.search(question) or _GOES_ON.match(question.strip()))


def with_words_before(question: str, turns: Sequence[Turn]) -> str:
    """The rule for when there is no model: put what was searched for last in front of a question that points back."""
    if not turns or not points_back(question):
        return question
    return f"{turns[-1].query[:_MAX_CHARACTERS]} {question}"


def condensed(model: BaseChatModel, question: str, turns: Sequence[Turn]) -> str:
    """Let a model rewrite a question that follows others. Without turns it stays as it is.

    What the model raises reaches the caller as it is.
    """
    if not turns:
        return question
    lines = [f"Question: {turn.question}\nAnswer: {turn.answer[:_MAX_OF_ANSWER]}" for turn in turns]
    conversation = "\n\n".join([*lines, f"Last question: {question}"])
    written = text_of(model.invoke([SystemMessage(_INSTRUCTION), HumanMessage(conversation)]))
    return " ".join(written.split()).strip('"')[:_MAX_CHARACTERS] or question

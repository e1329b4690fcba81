"""What one page of the chat shows when questions, answers and new conversations overlap."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("muvera_chat", reason="needs muvera-core[chat]")

from chat_models import SlowModel

from muvera_chat import Answerer
from muvera_chat.ui.session import STOPPED, Session
from muvera_core import MuveraIndex

QUESTION = "When do barn owls hunt?"
ANSWER = "They hunt at night [1]."


@pytest.fixture
def answerer() -> Iterator[Answerer]:
    """Answers by a model that pauses after each character, so that each piece is shown."""
    with MuveraIndex.create(None) as index:
        index.add(["Barn owls hunt at night.", "Rye bread keeps for two weeks."])
        yield Answerer(index, SlowModel(responses=[ANSWER], sleep=0.1, asked=[]))


def begin(answers: Iterator[str]) -> None:
    """Read an answer until the model has begun to write it."""
    assert any("<p>T" in shown for shown in answers)


def test_a_question_is_refused_while_another_is_answered(answerer: Answerer) -> None:
    conversation = Session().shown
    answers = conversation.ask(answerer, QUESTION)
    begin(answers)
    assert list(conversation.ask(answerer, "And by day?")) == []
    *_, last = answers
    assert "at night" in last
    assert conversation.turns == [last]


def test_the_next_question_is_taken_as_soon_as_an_answer_is_whole(answerer: Answerer) -> None:
    conversation = Session().shown
    answers = conversation.ask(answerer, QUESTION)
    next(shown for shown in answers if "mv-answered" in shown)
    # The generator has not ended: the browser may be faster.
    *_, last = conversation.ask(answerer, "And by day?")
    assert "And by day?" in last
    assert len(conversation.conversation.turns) == 2


def test_a_new_conversation_takes_a_question_while_the_answer_before_is_written(answerer: Answerer) -> None:
    session = Session()
    before = session.shown
    answers = before.ask(answerer, QUESTION)
    begin(answers)
    session.start_again()
    assert session.shown.is_new
    *_, last = session.shown.ask(answerer, QUESTION)
    assert "at night" in last
    assert list(answers) == []
    assert (len(before.conversation.turns), len(session.shown.conversation.turns)) == (0, 1)
    assert not session.shown.is_new


def test_a_stopped_answer_is_kept_as_it_is(answerer: Answerer) -> None:
    conversation = Session().shown
    answers = conversation.ask(answerer, QUESTION)
    begin(answers)
    conversation.is_stopping = True
    *_, last = answers
    assert STOPPED in last
    assert "at night" not in last.split("mv-sources")[0]
    *_, last = conversation.ask(answerer, QUESTION)
    assert "mv-answered" in last
    assert [turn.status for turn in conversation.conversation.turns] == ["failed", "answered"]


def test_an_answer_that_breaks_leaves_the_conversation_usable(answerer: Answerer) -> None:
    conversation = Session().shown
    answers = conversation.ask(answerer, QUESTION)
    begin(answers)
    answers.close()  # type: ignore[attr-defined]  # as when the page is closed
    assert not conversation.is_answering
    *_, last = conversation.ask(answerer, QUESTION)
    assert "mv-answered" in last

"""The chatbot of examples/chat_langchain.py with a model that answers as it is told."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage

from langchain_muvera import MuveraRetriever
from muvera_core import MuveraIndex

EXAMPLE = Path(__file__).parents[2] / "examples" / "chat_langchain.py"


class NotingModel(GenericFakeChatModel):
    """Streams given answers word by word, and notes what it was asked."""

    asked: list[list[str]]

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        self.asked.append([message.text for message in messages])
        return super()._generate(messages, *args, **kwargs)


@pytest.fixture
def index() -> Iterator[MuveraIndex]:
    with MuveraIndex.create(None) as index:
        index.add(["Owls hunt at night.", "Herons stand in shallow water.", "Ants live in colonies."], ["o", "h", "a"])
        yield index


def test_a_follow_up_is_condensed_searched_and_answered_from_numbered_passages(index: MuveraIndex) -> None:
    example = runpy.run_path(str(EXAMPLE))
    replies = ["Owls do [1].", "Which bird stands in water?", "The heron does [1]."]
    model = NotingModel(messages=iter(map(AIMessage, replies)), asked=[])
    conversation = example["Conversation"](MuveraRetriever(index=index, k=1), model)
    assert list(conversation.ask("Who hunts in the dark?")) == ["Owls", " ", "do", " ", "[1]."]
    assert [document.id for document in conversation.sources] == ["o"]
    assert "".join(conversation.ask("And in water?")) == "The heron does [1]."
    assert [document.id for document in conversation.sources] == ["h"]
    first, condensing, second = model.asked
    assert first[0].endswith("[1] Owls hunt at night.")
    assert condensing[1:] == ["Who hunts in the dark?", "Owls do [1].", "And in water?"]
    assert second[0].endswith("[1] Herons stand in shallow water.")
    assert second[-1] == "Which bird stands in water?"
    assert [message.text for message in conversation.messages][-2:] == ["And in water?", "The heron does [1]."]


def test_nothing_is_asked_of_the_model_if_nothing_was_found(index: MuveraIndex) -> None:
    model = NotingModel(messages=iter([]), asked=[])
    retriever = MuveraRetriever(index=index, k=1, filter={"unknown": 1})
    conversation = runpy.run_path(str(EXAMPLE))["Conversation"](retriever, model)
    assert list(conversation.ask("Who hunts in the dark?")) == ["The documents do not say."]
    assert model.asked == []


@pytest.mark.parametrize(
    ("questions", "expected"),
    [
        (["Who hunts at night?", "How does it fly?"], "Who hunts at night? How does it fly?"),
        (["Who hunts at night?", "And ants?"], "Who hunts at night? And ants?"),
        (["Who hunts at night?", "Where do all the ants live?"], "Where do all the ants live?"),
        (["What is it?"], "What is it?"),
    ],
)
def test_without_a_model_a_follow_up_takes_the_words_of_the_question_before(
    questions: list[str], expected: str
) -> None:
    for name in ("chat_langchain.py", "chat_llama_index.py"):
        if name == "chat_llama_index.py":
            pytest.importorskip("llama_index.core", reason="needs llama-index-core")
        assert runpy.run_path(str(EXAMPLE.with_name(name)))["standalone"](questions) == expected

"""Chat models that stand for a language model: they say what they are told to, slowly, or fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk


class SlowModel(FakeListChatModel):
    """Streams its responses character by character, and notes what it was asked."""

    asked: list[list[BaseMessage]]

    def _call(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> str:
        self.asked.append(messages)
        return super()._call(messages, *args, **kwargs)

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        self.asked.append(messages)
        yield from super()._stream(messages, *args, **kwargs)


class FailingModel(FakeListChatModel):
    """Breaks off in the middle of an answer."""

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        yield from super()._stream(messages, stop, run_manager, **kwargs)
        time.sleep(0.01)
        raise ConnectionError("the connection was <b>lost</b>")

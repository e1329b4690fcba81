"""The text of a model's message."""

from __future__ import annotations

import re

from langchain_core.messages import BaseMessage

# What a model that reasons aloud writes for itself.
_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)\s*", re.DOTALL)


def text_of(message: BaseMessage) -> str:
    """The text of a message, without other blocks such as reasoning or images."""
    return without_thoughts(str(message.text))


def without_thoughts(text: str) -> str:
    """The text without what stands between <think> and </think>, as small models write it."""
    return _THOUGHT.sub("", text)

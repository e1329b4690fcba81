"""Shared by all encoders: the check of texts, and the warning about a truncated text."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from muvera_core.errors import TruncatedTextWarning
from muvera_core.validation import counted, require_sequence, require_unicode

_SHOWN_CHARACTERS = 40


def require_unicode_texts(texts: Sequence[str]) -> list[str]:
    """The texts, as a list. Raises InvalidInputError unless they are a sequence of strings that UTF-8 can encode."""
    return [require_unicode(f"texts[{i}]", text) for i, text in enumerate(require_sequence("texts", texts))]


def warn_if_truncated(text: str, n_tokens: int, limit: int) -> None:
    """Issue a TruncatedTextWarning if a text has more tokens than the encoder's limit."""
    if n_tokens > limit:
        shown = text[:_SHOWN_CHARACTERS]
        warnings.warn(
            f"the text that starts with {shown!r} has {counted(n_tokens, 'token')}; the last "
            f"{n_tokens - limit} will be left out, because the encoder's limit is {limit}: "
            "split the text or raise the limit",
            TruncatedTextWarning,
            stacklevel=4,
        )

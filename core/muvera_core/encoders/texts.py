"""What all encoders ask of texts, and how they report what they leave out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from muvera_core.errors import InvalidInputError, TruncatedTextWarning

_SHOWN_CHARACTERS = 40


def require_unicode_texts(texts: Sequence[str]) -> list[str]:
    """The texts, if they are a sequence of strings that UTF-8 can hold. Raises InvalidInputError otherwise."""
    if isinstance(texts, str):
        raise InvalidInputError("expected a sequence of texts, got one str: put it into a list")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInputError(f"text {position} must be a str, got {type(text).__name__}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                f"text {position} holds half of a surrogate pair at character {error.start}, which isn't Unicode text: "
                "decode it with errors='replace'"
            ) from error
    return list(texts)


def warn_if_truncated(text: str, n_tokens: int, limit: int) -> None:
    """Issue a TruncatedTextWarning where a text has more tokens than an encoder takes."""
    if n_tokens > limit:
        shown = text[:_SHOWN_CHARACTERS]
        warnings.warn(
            f"the text that starts with {shown!r} has {n_tokens} tokens; the last {n_tokens - limit} are left out, "
            f"because the encoder's limit is {limit}: split the text or raise the limit",
            TruncatedTextWarning,
            stacklevel=4,
        )

"""Where the tokens of a text are, so that any part of it can be measured without tokenizing again."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass

from muvera_core.encoders import TokenEncoder, unreported

# Long texts are tokenized in parts, because encoders read the beginning of a very long text only.
_PART = 8_000
# How far back from its end a part may be cut at a space instead.
_LEEWAY = 1_000
# What counts as a token if the encoder does not say where its tokens are: four letters or digits, a character of a
# script without spaces, or a sign.
_ROUGH_TOKEN = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w{1,4}|[^\w\s]")
_SPACE = re.compile(r"\s")


@dataclass(frozen=True)
class TokenPlaces:
    """The places of a text's tokens.

    Attributes:
        starts: the character at which each token starts, in order.
    """

    starts: list[int]

    @classmethod
    def of(cls, text: str, encoder: TokenEncoder) -> TokenPlaces:
        """The places of the tokens that an encoder makes of a text. Time is proportional to the text's length."""
        starts: list[int] = []
        start, is_rough = 0, False
        with unreported():
            while start < len(text):
                end = _end_of_part(text, start)
                if is_rough:
                    starts += (match.start() for match in _ROUGH_TOKEN.finditer(text, start, end))
                    start = end
                    continue
                spans = encoder.document_spans(text[start:end])
                placed = spans[spans[:, 1] > spans[:, 0]] + start
                is_rough = len(spans) > 0 and len(placed) == 0 and not text[start:end].isspace()
                if is_rough:
                    continue
                starts += sorted(placed[:, 0].tolist())
                read = int(placed[:, 1].max()) if len(placed) else end
                # An encoder with a small limit reads the beginning only.
                start = read if text[read:end].strip() else end
        return cls(starts)

    def count(self, start: int, end: int) -> int:
        """Number of tokens that start in a part of the text."""
        return bisect_left(self.starts, end) - bisect_left(self.starts, start)

    def after(self, start: int, n: int) -> int | None:
        """Where the token starts that has ``n`` tokens between it and ``start``; None if there are not so many."""
        place = bisect_left(self.starts, start) + n
        return self.starts[place] if place < len(self.starts) else None

    def before(self, end: int, n: int) -> int:
        """Where the n-th last token before ``end`` starts; the text's start if there are fewer."""
        place = bisect_left(self.starts, end) - n
        return self.starts[place] if place >= 0 else 0


def _end_of_part(text: str, start: int) -> int:
    """Where the part ends that starts at ``start``: at a space, if there is one near its greatest length."""
    end = start + _PART
    if end >= len(text):
        return len(text)
    spaces = [match.end() for match in _SPACE.finditer(text, end - _LEEWAY, end)]
    return spaces[-1] if spaces else end

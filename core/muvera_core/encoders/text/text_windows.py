"""Cuts a long text into overlapping windows that begin and end with words, each short enough for a model.

A window is a part of the text, so that a model tokenizes it as it would any text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from muvera_core.encoders.text.tokenizing import Span, Wordpieces
from muvera_core.encoders.text.windows import OVERLAP_SHARE, split_into_windows
from muvera_core.errors import EncoderError
from muvera_core.token_embeddings import IntArray

# Part of the fingerprints. Another number says that windows are made in another way.
TEXT_WINDOWS_VERSION = 1
# Borders of windows are moved to the start of a word, by at most this share of a window.
_SNAP_SHARE = 1 / 16
# Tokens by which a text can be longer after its prompt than without it, where two tokens merge or split.
_JOINT = 4


@dataclass(frozen=True)
class TextWindow:
    """Characters ``start:stop`` of a text are encoded together; tokens that start in ``keep_start:keep_stop`` count.

    The kept ranges of a text's windows join without gap or overlap. Markers before the text count in the window that is
    first, and those after it in the one that is last.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int
    is_first: bool = True
    is_last: bool = True

    def kept(self, spans: IntArray, leading: int, trailing: int) -> IntArray:
        """Which vectors of the window count, as positions.

        Args:
            spans: start and end character, in the window, of each vector.
            leading: number of vectors of markers before the text.
            trailing: number of vectors of markers after it.
        """
        n, places = len(spans), np.arange(len(spans))
        starts = spans[:, 0] + self.start
        of_text = (places >= leading) & (places < n - trailing)
        keep = of_text & (starts >= self.keep_start) & (starts < self.keep_stop)
        if self.is_first:
            keep |= (places < leading) | (of_text & (starts < self.keep_start))
        if self.is_last:
            keep |= (places >= n - trailing) | (of_text & (starts >= self.keep_stop))
        return np.flatnonzero(keep).astype(np.int64)


@dataclass(frozen=True)
class TextCutter:
    """Cuts texts for one model.

    Attributes:
        limit: number of tokens that the model encodes at once, prompt and markers included; None for no limit.
        frame: number of tokens of the prompt and the markers.
        tokenize: gives the wordpieces of texts, up to a number, without prompt and markers.
        count: gives the exact number of tokens of a text, prompt and markers included; None if the number with a prompt
            is the sum of both.
        what: "document" or "query", for messages.
    """

    limit: int | None
    frame: int
    tokenize: Callable[[Sequence[str], int], list[Wordpieces]]
    count: Callable[[str], int] | None
    what: str

    def fits(self, text: str, n_tokens: int) -> bool:
        """Whether the model encodes the whole text at once.

        Args:
            text: the text.
            n_tokens: its length without prompt and markers.
        """
        if self.limit is None:
            return True
        spare = self.limit - self.frame - n_tokens
        if spare >= _JOINT or spare < -_JOINT or self.count is None:
            return spare >= 0
        return self.count(text) <= self.limit

    def windows(self, wordpieces: Wordpieces, *, may_overlap: bool = True) -> list[TextWindow]:
        """The windows of a text. A text that fits has one. Raises EncoderError if prompt and markers leave no room."""
        text, n = wordpieces.text[: wordpieces.end], len(wordpieces.ids)
        if self.limit is None or self.fits(text, n):
            return [TextWindow(0, len(text), 0, len(text))]
        size = self.limit - self.frame
        while size >= 1:
            windows = _windows(text, wordpieces.spans, size, may_overlap)
            counts = self.tokenize([text[w.start : w.stop] for w in windows], n)
            spare = min(self.limit - self.frame - len(found.ids) for found in counts)
            if spare >= _JOINT or all(
                self.fits(text[w.start : w.stop], len(found.ids)) for w, found in zip(windows, counts, strict=True)
            ):
                return windows
            size -= max(1, -spare)
        raise EncoderError(
            f"the model encodes {self.limit} tokens at once, of which prompt and markers take {self.frame}: too few "
            f"for a {self.what}. Raise {self.what}_length"
        )


def _windows(text: str, spans: Sequence[Span], size: int, may_overlap: bool) -> list[TextWindow]:
    n, snap = len(spans), int(size * _SNAP_SHARE)
    starts = [span[0] for span in spans]

    def begins_word(place: int) -> bool:
        at = starts[place]
        return at == 0 or text[at].isspace() or text[at - 1].isspace()

    def up(place: int) -> int:
        return next((at for at in range(place, min(n, place + snap + 1)) if begins_word(at)), place)

    def down(place: int) -> int:
        return next((at for at in range(place, max(-1, place - snap - 1), -1) if begins_word(at)), place)

    windows = split_into_windows(n, size, int(size * OVERLAP_SHARE))
    firsts = [0, *(up(window.start) for window in windows[1:])]
    stops = [*(starts[down(window.stop)] for window in windows[:-1]), len(text)]
    borders = [0, *(starts[down(window.keep_start)] for window in windows[1:]), len(text)]
    if not may_overlap:
        return [
            TextWindow(start, stop, start, stop, is_first=start == 0, is_last=stop == len(text))
            for start, stop in pairwise(borders)
        ]
    return [
        TextWindow(0 if i == 0 else starts[first], stop, *kept, is_first=i == 0, is_last=i == len(windows) - 1)
        for i, (first, stop, kept) in enumerate(zip(firsts, stops, pairwise(borders), strict=True))
    ]

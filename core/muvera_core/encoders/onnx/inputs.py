"""Makes a model's input of a text: prompt, special tokens, expansion, and which of them have vectors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from tokenizers import Encoding, Tokenizer

from muvera_core.encoders.onnx.config import TaskConfig
from muvera_core.encoders.text.layout import Expansion, Piece
from muvera_core.encoders.text.text_windows import TextCutter, TextWindow
from muvera_core.encoders.text.tokenizing import LimitedTokenizer, Span, Wordpieces, longest_reading
from muvera_core.errors import EncoderError
from muvera_core.validation import has_visible_text


@dataclass(frozen=True)
class ModelInput:
    """What the model gets for one text, or window.

    Attributes:
        ids: token ids, with those of the expansion.
        attended: number of leading ids that attention may use.
        scored: positions that have vectors.
        spans: start and end character of each of these; equal for special tokens, prompt and expansion.
        leading: number of scored positions before the text's first token.
        trailing: number of scored positions after its last one.
    """

    ids: list[int]
    attended: int
    scored: list[int]
    spans: list[Span]
    leading: int
    trailing: int

    def piece(self, window: TextWindow) -> Piece:
        """The part that counts in a window, with places in the whole text."""
        kept = window.kept(np.array(self.spans, dtype=np.int64).reshape(-1, 2), self.leading, self.trailing)
        shift = window.start
        spans = [(self.spans[row][0] + shift, self.spans[row][1] + shift) for row in kept]
        return Piece(self.ids, self.attended, [self.scored[row] for row in kept], spans, {}, False)


class TaskInputs:
    """Makes the inputs of one task, documents or queries. Instances never change, so that threads can share them.

    Args:
        tokenizer: without truncation and padding.
        unknown: the id of the token of unknown words.
        config: how texts are read.
        skipped: ids that have no vectors.
        expansion: what fills up short texts.
        what: "document" or "query".

    Raises:
        EncoderError: prompt and special tokens leave no room for a text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        unknown: int | None,
        config: TaskConfig,
        skipped: Collection[int],
        expansion: Expansion | None,
        what: str,
    ) -> None:
        self._tokenizer, self._config, self._expansion = tokenizer, config, expansion
        self._skipped = frozenset(skipped) if config.skips else frozenset()
        self._limited = LimitedTokenizer(tokenizer, unknown, splits_unknown=False)
        # A marker's token is put in, so its text is not written.
        self._prompt = config.prompt if config.marker is None else ""
        frame = len(self._encode("")[0])
        self.limit = config.length
        if self.limit is not None and frame >= self.limit:
            raise EncoderError(
                f"the prompt and the special tokens of a {what} have {frame} tokens, but the model encodes "
                f"{self.limit} tokens at once: raise {what}_length"
            )
        self._cutter = TextCutter(self.limit, frame, self._limited, self._count, what)

    def room(self, at_most: int) -> int:
        """Number of tokens of a text that are encoded at once, with a limit of our own."""
        return at_most if self.limit is None else min(at_most, self.limit - self._cutter.frame)

    def first_tokens(self, texts: list[str], limit: int) -> list[Wordpieces]:
        """The first tokens of texts, without prompt and special tokens."""
        return self._limited(texts, limit)

    def windows(self, wordpieces: Wordpieces) -> list[Piece]:
        """The inputs for a text that is encoded whole, in windows if it is long."""
        text = wordpieces.text
        return [
            self.model_input(text[window.start : window.stop]).piece(window)
            for window in self._cutter.windows(wordpieces)
        ]

    def cut(self, wordpieces: Wordpieces) -> tuple[Wordpieces, Piece]:
        """The input for a text that is cut at the limit, and the wordpieces with the ``end`` at which it is cut."""
        text = wordpieces.text[: wordpieces.end]
        if not self._cutter.fits(text, len(wordpieces.ids)) or wordpieces.end < len(wordpieces.text):
            given = wordpieces.text if self.limit is None else wordpieces.text[: longest_reading(self.limit)]
            found = self.model_input(given)
            ends = [end for start, end in found.spans if start < end]
            end = min(max(ends, default=0), wordpieces.end)
            end = end if has_visible_text(wordpieces.text[end:]) else len(wordpieces.text)
            return replace(wordpieces, end=end), found.piece(TextWindow(0, len(given), 0, len(given)))
        return wordpieces, self.model_input(text).piece(TextWindow(0, len(text), 0, len(text)))

    def model_input(self, text: str) -> ModelInput:
        """The input for a text, cut at the limit."""
        ids, spans = self._encode(text)
        n_real = len(ids)
        end = max((end for start, end in spans if start < end), default=0)
        attended = n_real
        if self._expansion is not None and n_real < self._expansion.length:
            n_more = self._expansion.length - n_real
            ids += [self._expansion.token] * n_more
            spans += [(end, end)] * n_more
            attended = len(ids) if self._expansion.attended else n_real
        of_text = [place for place, (start, end) in enumerate(spans) if start < end]
        first, last = (of_text[0], of_text[-1]) if of_text else (len(ids), len(ids))
        for place in range(n_real):
            if spans[place][0] == spans[place][1]:
                edge = 0 if place < first else end if place > last else spans[place - 1][1]
                spans[place] = (edge, edge)
        scored = [place for place, id in enumerate(ids) if id not in self._skipped]
        leading = sum(place < first for place in scored)
        trailing = sum(place > last for place in scored)
        return ModelInput(ids, attended, scored, [spans[place] for place in scored], leading, trailing)

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(self._prompt + text).ids) + (self._config.marker is not None)

    def _encode(self, text: str) -> tuple[list[int], list[Span]]:
        """The ids of a text with prompt and special tokens, cut at the limit, and their places in the text."""
        n_prompt = len(self._prompt)
        encoding = self._tokenizer.encode(self._prompt + text)
        ids = list(encoding.ids)
        spans = [
            (max(0, start - n_prompt), end - n_prompt) if start < end and end > n_prompt else (0, 0)
            for start, end in encoding.offsets
        ]
        if self._config.marker is not None:
            place = 1 if encoding.special_tokens_mask[:1] == [1] else 0
            ids.insert(place, self._config.marker)
            spans.insert(place, (0, 0))
        n_cut = 0 if self._config.length is None else max(0, len(ids) - self._config.length)
        if n_cut:
            stop = len(ids) - _n_after(encoding)
            del ids[stop - n_cut : stop], spans[stop - n_cut : stop]
        return ids, spans


def _n_after(encoding: Encoding) -> int:
    """The number of special tokens that the tokenizer put after a text."""
    mask = encoding.special_tokens_mask
    return next((n for n, is_special in enumerate(reversed(mask)) if not is_special), 0)

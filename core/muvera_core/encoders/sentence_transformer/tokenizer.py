"""A model's own tokenizer, without its truncation and padding, which its calls change for all threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from muvera_core.encoders.text.tokenizing import LimitedTokenizer, Span, Wordpieces, longest_reading

# How tokenizers mark that a token continues a word, or that a space is before it.
_MARKS = "#▁Ġ "


@dataclass(frozen=True)
class Encoding:
    """The tokens of a text.

    Attributes:
        ids: token ids.
        offsets: start and end character of each token; equal for markers that the tokenizer adds.
    """

    ids: list[int]
    offsets: list[Span]


class ModelTokenizer:
    """Tokenizes texts as a model does.

    Args:
        tokenizer: of transformers. One that is not "fast" gives no offsets; they are then found by searching the text
            for each token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._slow: Any = None
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            self._slow = tokenizer
            return
        from tokenizers import Tokenizer

        self._fast = Tokenizer.from_str(backend.to_str())
        self._fast.no_truncation()
        self._fast.no_padding()
        # Whether "[SEP]" written in a text is text. It is a marker for most models.
        self._fast.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
        self._limited = LimitedTokenizer(self._fast, tokenizer.unk_token_id, splits_unknown=False)

    def pieces(self, texts: Sequence[str], limit: int) -> list[Wordpieces]:
        """The first ``limit`` tokens of each text, without markers."""
        if self._slow is None:
            return self._limited(texts, limit)
        return [self._slow_pieces(text, limit) for text in texts]

    def with_markers(self, text: str) -> Encoding:
        """All tokens of a text and the markers around it."""
        if self._slow is None:
            encoding = self._fast.encode(text)
            return Encoding(encoding.ids, encoding.offsets)
        ids = self._slow(text, add_special_tokens=True, truncation=False)["input_ids"]
        return Encoding(ids, list(self._found(text, ids)))

    def _slow_pieces(self, text: str, limit: int) -> Wordpieces:
        read = text[: longest_reading(limit)]
        ids = self._slow(read, add_special_tokens=False, truncation=False)["input_ids"]
        spans = list(self._found(read, ids))
        whole = len(ids) <= limit
        end = (len(text) if len(read) == len(text) else len(read)) if whole else spans[limit - 1][1]
        return Wordpieces(text, ids[:limit], spans[:limit], {}, end)

    def _found(self, text: str, ids: Sequence[int]) -> Iterator[Span]:
        special = set(self._slow.all_special_ids)
        lowered = text.lower()
        lowered = lowered if len(lowered) == len(text) else text
        place = 0
        for id, token in zip(ids, self._slow.convert_ids_to_tokens(list(ids)), strict=True):
            part = token.strip(_MARKS) or token
            found = -1 if id in special else max(text.find(part, place), lowered.find(part.lower(), place))
            if found < 0:
                yield place, place
            else:
                place = found + len(part)
                yield found, place

"""Lays out a ColBERT model's input as colbert-ai does: markers, windows of long documents, masks of short queries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from muvera_core.encoders.tokenizing import Span, Wordpieces
from muvera_core.encoders.unknown_words import UnknownWord
from muvera_core.encoders.windows import Window, split_into_windows
from muvera_core.token_embeddings import IntArray

# The markers around every text: [CLS], [Q] or [D], and [SEP].
N_MARKERS = 3
# Windows overlap by a quarter, so that a token near a border still has an eighth of a window as context.
OVERLAP_SHARE = 0.25


@dataclass(frozen=True)
class Piece:
    """One input of the model: a text, or a window of it.

    Attributes:
        ids: token ids, markers and masks included.
        attended: number of leading ids that attention may use.
        keep: positions whose vectors are kept, shape (kept,).
        spans: start and end character of each of these positions, shape (kept, 2).
        unknown: words that the vocabulary lacks, by their row among the kept vectors.
    """

    ids: list[int]
    attended: int
    keep: IntArray
    spans: IntArray
    unknown: Mapping[int, UnknownWord]


@dataclass(frozen=True)
class InputFormat:
    """What a checkpoint's inputs look like.

    Attributes:
        cls: id of [CLS].
        sep: id of [SEP].
        mask: id of [MASK].
        pad: id of [PAD].
        document_marker: id of [D].
        query_marker: id of [Q].
        skiplist: ids of punctuation, which gets no vectors in documents.
        doc_maxlen: tokens of a document's window, markers included.
        query_maxlen: tokens to which shorter queries are filled up with [MASK], markers included.
        attends_to_masks: whether attention may use a query's masks.
    """

    cls: int
    sep: int
    mask: int
    pad: int
    document_marker: int
    query_marker: int
    skiplist: Collection[int]
    doc_maxlen: int
    query_maxlen: int
    attends_to_masks: bool

    def document(self, wordpieces: Wordpieces) -> list[Piece]:
        """The windows of a document."""
        size = self.doc_maxlen - N_MARKERS
        windows = split_into_windows(len(wordpieces.ids), size, int(size * OVERLAP_SHARE))
        return [self._window(wordpieces, window) for window in windows]

    def query(self, wordpieces: Wordpieces) -> list[Piece]:
        """A query as a single piece."""
        # colbert-ai replaces every [PAD] of a query with [MASK], also one that the text contains.
        tokens = [self.mask if token == self.pad else token for token in wordpieces.ids]
        ids = [self.cls, self.query_marker, *tokens, self.sep]
        n_masks = max(0, self.query_maxlen - len(ids))
        attended = len(ids) + (n_masks if self.attends_to_masks else 0)
        end = _end(wordpieces)
        places = [(0, 0), (0, 0), *wordpieces.spans, (end, end), *[(end, end)] * n_masks]
        keep: Sequence[int] = range(len(places))
        if not wordpieces.have_words(0, len(tokens)):
            keep = range(2, 2 + len(tokens))
        return [_piece(wordpieces, 0, ids + [self.mask] * n_masks, attended, keep, places)]

    def _window(self, wordpieces: Wordpieces, window: Window) -> Piece:
        end = _end(wordpieces)
        ids = [self.cls, self.document_marker, *wordpieces.ids[window.start : window.stop], self.sep]
        places = [(0, 0), (0, 0), *wordpieces.spans[window.start : window.stop], (end, end)]
        first, last = (edge - window.start + 2 for edge in (window.keep_start, window.keep_stop))
        if wordpieces.have_words(window.start, window.stop):
            if window.keep_start == 0:
                first = 0
            if window.keep_stop == len(wordpieces.ids):
                last = len(ids)
        keep = [i for i in range(first, last) if ids[i] != self.pad and ids[i] not in self.skiplist]
        return _piece(wordpieces, window.start, ids, len(ids), keep, places)


def input_format(checkpoint: Any) -> InputFormat:
    """Read the format from a colbert-ai ``Checkpoint``."""
    tokenizer, config = checkpoint.raw_tokenizer, checkpoint.colbert_config
    return InputFormat(
        cls=int(tokenizer.cls_token_id),
        sep=int(tokenizer.sep_token_id),
        mask=int(tokenizer.mask_token_id),
        pad=int(tokenizer.pad_token_id),
        document_marker=int(checkpoint.doc_tokenizer.D_marker_token_id),
        query_marker=int(checkpoint.query_tokenizer.Q_marker_token_id),
        skiplist=checkpoint.skiplist,
        doc_maxlen=int(config.doc_maxlen),
        query_maxlen=int(config.query_maxlen),
        attends_to_masks=bool(config.attend_to_mask_tokens),
    )


def _end(wordpieces: Wordpieces) -> int:
    return wordpieces.spans[-1][1] if wordpieces.spans else 0


def _piece(
    wordpieces: Wordpieces, start: int, ids: list[int], attended: int, keep: Sequence[int], places: Sequence[Span]
) -> Piece:
    unknown = {}
    if wordpieces.unknown:
        # [CLS] and [Q] or [D] come before the wordpieces.
        by_row = {row: start + i - 2 for row, i in enumerate(keep)}
        unknown = {row: wordpieces.unknown[place] for row, place in by_row.items() if place in wordpieces.unknown}
    spans = np.asarray([places[i] for i in keep], dtype=np.int64).reshape(-1, 2)
    return Piece(ids, attended, np.asarray(keep, dtype=np.int64), spans, unknown)

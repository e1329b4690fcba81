"""A TokenEncoder for any ColBERT checkpoint folder. It runs colbert-ai's own model code on CPU or CUDA."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from muvera_core.encoders.colbert_checkpoint import content_hash, inspect_checkpoint
from muvera_core.encoders.colbert_loading import load_checkpoint, position_limit, require_colbert, resolve_device
from muvera_core.encoders.texts import require_unicode_texts, warn_if_truncated
from muvera_core.encoders.windows import split_into_windows
from muvera_core.errors import InvalidInputError
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings
from muvera_core.validation import require_count

if TYPE_CHECKING:
    from tokenizers import Encoding

# The markers around every text: [CLS], [Q] or [D], and [SEP].
_MARKERS = 3
# Windows overlap by a quarter, so that a token near a border still has an eighth of a window as context.
_OVERLAP_SHARE = 0.25
# The settings of a checkpoint that change its vectors, apart from its lengths.
_VECTOR_SETTINGS = ("dim", "mask_punctuation", "attend_to_mask_tokens", "query_token_id", "doc_token_id")


@dataclass(frozen=True)
class _Piece:
    """One input of the model: a text, or a window of it.

    Attributes:
        ids: token ids, markers and masks included.
        attended: number of leading ids that attention may use.
        keep: positions whose vectors are kept, shape (kept,).
        spans: start and end character of each of these positions, shape (kept, 2).
    """

    ids: list[int]
    attended: int
    keep: IntArray
    spans: IntArray


class ColBERTEncoder:
    """Token vectors of a ColBERT checkpoint, equal to those that colbert-ai computes.

    A text within the lengths gets exactly the vectors of colbert-ai's ``Checkpoint.docFromText`` and
    ``queryFromText``: with [D] and [Q] markers, documents without punctuation, queries padded with [MASK] to
    ``query_maxlen``. colbert-ai truncates longer texts. This class encodes them:

    - A document longer than ``doc_maxlen`` is encoded in overlapping windows, each with its own markers. Of the
      markers, only [CLS] and [D] of the first window and [SEP] of the last one are kept. Wordpieces beyond
      ``max_document_tokens`` are left out with a ``TruncatedTextWarning``.
    - A query longer than ``query_maxlen`` is encoded whole, without masks, up to the number of positions of the model
      (512 for BERT). Only tokens beyond that are left out, with the same warning.

    Nothing is ever downloaded, and no code of the checkpoint is run. Encoding is thread-safe.

    Args:
        checkpoint: the folder, as colbert-ai saves it: config.json, artifact.metadata, a tokenizer and the weights.
        device: "cpu", "cuda" or "cuda:N"; by default CUDA if it is available. On CUDA colbert-ai computes in half
            precision, so vectors differ from the CPU's by about 1e-3.
        batch_size: number of texts, or windows of texts, that the model encodes together.
        doc_maxlen: window of a document in tokens, its three markers included; by default the checkpoint's own.
        query_maxlen: length in tokens, markers included, to which shorter queries are padded; by default the
            checkpoint's own.
        max_document_tokens: largest number of wordpieces of a document to encode.

    Raises:
        MissingExtraError: colbert-ai is not installed.
        InvalidInputError: a length or the device is invalid.
        DimensionMismatchError: the checkpoint's settings and weights disagree on the dimension.
        EncoderError: the folder is not a checkpoint that can be loaded safely; see ``inspect_checkpoint``.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str],
        *,
        device: str | None = None,
        batch_size: int = 32,
        doc_maxlen: int | None = None,
        query_maxlen: int | None = None,
        max_document_tokens: int = 16384,
    ) -> None:
        batch_size = require_count("batch_size", batch_size)
        max_document_tokens = require_count("max_document_tokens", max_document_tokens)
        for name, value in (("doc_maxlen", doc_maxlen), ("query_maxlen", query_maxlen)):
            if value is not None:
                require_count(name, value)
        require_colbert()
        torch_device = resolve_device(device)
        folder = inspect_checkpoint(checkpoint)
        lengths = {"doc_maxlen": doc_maxlen, "query_maxlen": query_maxlen}
        self._model: Any = load_checkpoint(folder, torch_device, {k: v for k, v in lengths.items() if v is not None})
        config = self._model.colbert_config
        self._longest = position_limit(self._model)
        for name in lengths:
            if not _MARKERS < getattr(config, name) <= self._longest:
                raise InvalidInputError(
                    f"{name} must be above {_MARKERS} (the markers) and at most {self._longest} "
                    f"(the positions of this model), got {getattr(config, name)}"
                )
        self.batch_size = batch_size
        self.max_document_tokens = max_document_tokens
        self.doc_maxlen = int(config.doc_maxlen)
        self.query_maxlen = int(config.query_maxlen)
        self._dimension = folder.dimension
        self._attend_to_masks = bool(config.attend_to_mask_tokens)
        self._doc_marker = int(self._model.doc_tokenizer.D_marker_token_id)
        self._query_marker = int(self._model.query_tokenizer.Q_marker_token_id)
        tokenizer = self._model.raw_tokenizer
        self._cls, self._sep = int(tokenizer.cls_token_id), int(tokenizer.sep_token_id)
        self._mask, self._pad = int(tokenizer.mask_token_id), int(tokenizer.pad_token_id)
        # Not transformers' wrapper: its calls change truncation and padding, which all threads share.
        self._tokenizer = tokenizer.backend_tokenizer
        settings = {name: getattr(config, name) for name in _VECTOR_SETTINGS}
        self._fingerprint = content_hash(
            folder,
            settings
            | {"doc_maxlen": self.doc_maxlen, "query_maxlen": self.query_maxlen, "overlap_share": _OVERLAP_SHARE},
        )

    @property
    def dimension(self) -> int:
        """Width of a token vector."""
        return self._dimension

    @property
    def fingerprint(self) -> str:
        """Hash of the weights, the tokenizer and the settings. It does not depend on the folder's path."""
        return self._fingerprint

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of passages, in order. If the checkpoint masks punctuation, punctuation has no vectors.

        Raises:
            InvalidInputError: ``texts`` is not a sequence of valid strings.
        """
        return self._encode(texts, self._document_pieces, self.max_document_tokens, self._model.doc)

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of queries, in order: ``query_maxlen`` of them for each query that is not longer.

        Raises:
            InvalidInputError: ``texts`` is not a sequence of valid strings.
        """
        return self._encode(texts, self._query_pieces, self._longest - _MARKERS, self._model.query)

    def document_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_documents([text])``, int64, shape (tokens, 2)."""
        pieces = self._document_pieces(self._tokenize([text])[0])
        return np.concatenate([piece.spans for piece in pieces])

    def query_spans(self, text: str) -> IntArray:
        """The same for ``encode_queries([text])``. A [MASK] has an empty span at the end of the text."""
        pieces = self._query_pieces(self._tokenize([text])[0])
        return np.concatenate([piece.spans for piece in pieces])

    def _tokenize(self, texts: Sequence[str]) -> list[Encoding]:
        encodings: list[Encoding] = self._tokenizer.encode_batch(require_unicode_texts(texts), add_special_tokens=False)
        return encodings

    def _document_pieces(self, encoding: Encoding) -> list[_Piece]:
        wordpieces = encoding.ids[: self.max_document_tokens]
        spans = encoding.offsets[: self.max_document_tokens]
        end = spans[-1][1] if spans else 0
        size = self.doc_maxlen - _MARKERS
        pieces = []
        for window in split_into_windows(len(wordpieces), size, int(size * _OVERLAP_SHARE)):
            ids = [self._cls, self._doc_marker, *wordpieces[window.start : window.stop], self._sep]
            places = [(0, 0), (0, 0), *spans[window.start : window.stop], (end, end)]
            first, last = (edge - window.start + 2 for edge in (window.keep_start, window.keep_stop))
            if window.keep_start == 0:
                first = 0
            if window.keep_stop == len(wordpieces):
                last = len(ids)
            keep = [i for i in range(first, last) if ids[i] != self._pad and ids[i] not in self._model.skiplist]
            pieces.append(_piece(ids, len(ids), keep, [places[i] for i in keep]))
        return pieces

    def _query_pieces(self, encoding: Encoding) -> list[_Piece]:
        room = self._longest - _MARKERS
        # colbert-ai replaces every [PAD] of a query with [MASK], also one that the text contains.
        wordpieces = [self._mask if token == self._pad else token for token in encoding.ids[:room]]
        spans = encoding.offsets[:room]
        end = spans[-1][1] if spans else 0
        ids = [self._cls, self._query_marker, *wordpieces, self._sep]
        n_masks = max(0, self.query_maxlen - len(ids))
        attended = len(ids) + (n_masks if self._attend_to_masks else 0)
        places = [(0, 0), (0, 0), *spans, (end, end), *[(end, end)] * n_masks]
        return [_piece(ids + [self._mask] * n_masks, attended, range(len(places)), places)]

    def _encode(
        self,
        texts: Sequence[str],
        pieces_of: Callable[[Encoding], list[_Piece]],
        limit: int,
        model: Callable[[Any, Any], Any],
    ) -> TokenEmbeddings:
        encodings = self._tokenize(texts)
        for text, encoding in zip(texts, encodings, strict=True):
            warn_if_truncated(text, len(encoding.ids), limit)
        pieces = [pieces_of(encoding) for encoding in encodings]
        vectors = iter(self._run([piece for text_pieces in pieces for piece in text_pieces], model))
        rows = [np.concatenate([next(vectors) for _ in text_pieces]) for text_pieces in pieces]
        return TokenEmbeddings.from_list(rows, dimension=self.dimension)

    def _run(self, pieces: Sequence[_Piece], model: Callable[[Any, Any], Any]) -> list[FloatArray]:
        """The kept vectors of each piece, float32, shape (kept, dimension)."""
        # Pieces of similar length share a batch, so that little padding is computed.
        order = sorted(range(len(pieces)), key=lambda i: len(pieces[i].ids))
        results: dict[int, FloatArray] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            for i, vectors in zip(batch, self._forward([pieces[i] for i in batch], model), strict=True):
                results[i] = vectors[pieces[i].keep]
        return [results[i] for i in range(len(pieces))]

    def _forward(self, pieces: Sequence[_Piece], model: Callable[[Any, Any], Any]) -> Iterator[FloatArray]:
        import torch

        ids = np.full((len(pieces), max(len(piece.ids) for piece in pieces)), self._pad, dtype=np.int64)
        attention = np.zeros_like(ids)
        for row, piece in enumerate(pieces):
            ids[row, : len(piece.ids)] = piece.ids
            attention[row, : piece.attended] = 1
        vectors = model(torch.from_numpy(ids), torch.from_numpy(attention))
        yield from vectors.float().cpu().numpy()


def _piece(ids: list[int], attended: int, keep: Sequence[int], spans: Sequence[tuple[int, int]]) -> _Piece:
    return _Piece(ids, attended, np.asarray(keep, dtype=np.int64), np.asarray(spans, dtype=np.int64).reshape(-1, 2))

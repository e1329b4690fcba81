"""A TokenEncoder for any ColBERT checkpoint folder. It runs colbert-ai's own model code on CPU or CUDA."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from muvera_core.encoders.colbert_ai.checkpoint import content_hash, inspect_checkpoint
from muvera_core.encoders.colbert_ai.loading import load_checkpoint, position_limit, require_colbert, resolve_device
from muvera_core.encoders.colbert_ai.pieces import N_MARKERS, input_formats
from muvera_core.encoders.text.layout import Piece, span_array
from muvera_core.encoders.text.naming import require_unicode_texts
from muvera_core.encoders.text.reports import TextReports
from muvera_core.encoders.text.tokenizing import LimitedTokenizer, Wordpieces
from muvera_core.encoders.text.unknown_words import UNKNOWN_WORDS_VERSION
from muvera_core.encoders.text.windows import OVERLAP_SHARE
from muvera_core.encoders.torch_forks import allow_forks
from muvera_core.errors import EncoderError, InvalidInputError
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings
from muvera_core.validation import require_count

# The settings of a checkpoint that change its vectors, apart from its lengths.
_VECTOR_SETTINGS = ("dim", "mask_punctuation", "attend_to_mask_tokens", "query_token_id", "doc_token_id")

# Attributes that a copy makes anew.
_LOADED = ("_model", "_formats", "_tokenize_prefix", "_reports")


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

    Words that the vocabulary lacks are the one exception from this equality. All of them are the token [UNK], and their
    vectors in the model match one another. Here the vector of such a word is made from its characters. A text, or
    window, in which nothing is known has the vectors of its tokens only, without markers and masks. If a third of a
    text is unknown, an ``UnknownTextWarning`` says so, once for documents and once for queries.

    Encoders can be pickled and copied: the copy loads the checkpoint from the same folder again, and raises
    EncoderError if its content has changed.

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
        self.batch_size = require_count("batch_size", batch_size)
        self.max_document_tokens = require_count("max_document_tokens", max_document_tokens)
        for name, value in (("doc_maxlen", doc_maxlen), ("query_maxlen", query_maxlen)):
            if value is not None:
                require_count(name, value)
        self._device = device
        self._load(checkpoint, doc_maxlen, query_maxlen)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _LOADED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._load(self._checkpoint, self.doc_maxlen, self.query_maxlen)
        if self._fingerprint != state["_fingerprint"]:
            raise EncoderError(
                f"{self._checkpoint} no longer has the content that it had when the encoder was pickled: "
                "make a new encoder of that folder, or restore its files"
            )

    @property
    def dimension(self) -> int:
        """Width of a token vector."""
        return self._dimension

    @property
    def fingerprint(self) -> str:
        """Hash of the weights, the tokenizer and the settings. It does not depend on the folder's path."""
        return self._fingerprint

    @property
    def settings(self) -> dict[str, Any]:
        """The checkpoint by name and content, and the lengths and limits, as the constructor takes them."""
        return {
            "checkpoint": Path(self._checkpoint).name,
            "content": self._fingerprint,
            "doc_maxlen": self.doc_maxlen,
            "query_maxlen": self.query_maxlen,
            "max_document_tokens": self.max_document_tokens,
        }

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of passages, in order. If the checkpoint masks punctuation, punctuation has no vectors.

        Raises:
            InvalidInputError: ``texts`` is not a sequence of valid strings.
        """
        wordpieces = self._tokenize(texts, self.max_document_tokens)
        self._reports.documents(wordpieces, self.max_document_tokens)
        return self._encode([self._formats.document.pieces(pieces) for pieces in wordpieces], self._model.doc)

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of queries, in order: ``query_maxlen`` of them for each query that is not longer.

        Raises:
            InvalidInputError: ``texts`` is not a sequence of valid strings.
        """
        wordpieces = self._tokenize(texts, self._max_query_tokens)
        self._reports.queries(wordpieces, self._max_query_tokens)
        return self._encode([self._formats.query.pieces(pieces) for pieces in wordpieces], self._model.query)

    def document_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_documents([text])``, int64, shape (tokens, 2)."""
        return span_array(self._formats.document.pieces(self._tokenize([text], self.max_document_tokens)[0]))

    def query_spans(self, text: str) -> IntArray:
        """The same for ``encode_queries([text])``. A [MASK] has an empty span at the end of the text."""
        return span_array(self._formats.query.pieces(self._tokenize([text], self._max_query_tokens)[0]))

    def _load(self, checkpoint: str | os.PathLike[str], doc_maxlen: int | None, query_maxlen: int | None) -> None:
        require_colbert()
        allow_forks()
        torch_device = resolve_device(self._device)
        folder = inspect_checkpoint(checkpoint)
        self._checkpoint = str(folder.path)
        lengths = {"doc_maxlen": doc_maxlen, "query_maxlen": query_maxlen}
        self._model: Any = load_checkpoint(folder, torch_device, {k: v for k, v in lengths.items() if v is not None})
        config = self._model.colbert_config
        longest = position_limit(self._model)
        for name in lengths:
            if not N_MARKERS < getattr(config, name) <= longest:
                raise InvalidInputError(
                    f"{name} must be above {N_MARKERS} (the markers) and at most {longest} "
                    f"(the positions of this model), got {getattr(config, name)}"
                )
        self.doc_maxlen = int(config.doc_maxlen)
        self.query_maxlen = int(config.query_maxlen)
        self._dimension = folder.dimension
        self._max_query_tokens = longest - N_MARKERS
        self._formats = input_formats(self._model)
        tokenizer = self._model.raw_tokenizer
        # Not transformers' wrapper: its calls change truncation and padding, which all threads share.
        self._tokenize_prefix = LimitedTokenizer(
            tokenizer.backend_tokenizer, tokenizer.unk_token_id, splits_unknown=False
        )
        self._reports = TextReports(
            "Split it into passages, or raise max_document_tokens", "Shorten it: the model has no more positions"
        )
        settings = {name: getattr(config, name) for name in _VECTOR_SETTINGS} | {
            "doc_maxlen": self.doc_maxlen,
            "query_maxlen": self.query_maxlen,
            "overlap_share": OVERLAP_SHARE,
            "unknown_words": UNKNOWN_WORDS_VERSION,
        }
        self._fingerprint = content_hash(folder, settings)

    def _tokenize(self, texts: Sequence[str], limit: int) -> list[Wordpieces]:
        return self._tokenize_prefix(require_unicode_texts(texts), limit)

    def _encode(self, pieces: Sequence[Sequence[Piece]], model: Callable[[Any, Any], Any]) -> TokenEmbeddings:
        vectors = iter(self._run([piece for text_pieces in pieces for piece in text_pieces], model))
        rows = [np.concatenate([next(vectors) for _ in text_pieces]) for text_pieces in pieces]
        return TokenEmbeddings.from_list(rows, dimension=self.dimension)

    def _run(self, pieces: Sequence[Piece], model: Callable[[Any, Any], Any]) -> list[FloatArray]:
        """The kept vectors of each piece, float32, shape (kept, dimension)."""
        # Pieces of similar length share a batch, so that little padding is computed.
        order = sorted(range(len(pieces)), key=lambda i: len(pieces[i].ids))
        results: dict[int, FloatArray] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            for i, vectors in zip(batch, self._forward([pieces[i] for i in batch], model), strict=True):
                results[i] = pieces[i].vectors(vectors, self._dimension)
        return [results[i] for i in range(len(pieces))]

    def _forward(self, pieces: Sequence[Piece], model: Callable[[Any, Any], Any]) -> Iterator[FloatArray]:
        import torch

        ids = np.full((len(pieces), max(len(piece.ids) for piece in pieces)), self._formats.pad, dtype=np.int64)
        attention = np.zeros_like(ids)
        for row, piece in enumerate(pieces):
            ids[row, : len(piece.ids)] = piece.ids
            attention[row, : piece.attended] = 1
        vectors = model(torch.from_numpy(ids), torch.from_numpy(attention))
        yield from vectors.float().cpu().numpy()

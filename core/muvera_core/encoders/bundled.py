"""The encoder that ships with muvera: token states of all-MiniLM-L6-v2 in 128 dimensions, int8, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from muvera_core.encoders.bundled_model import BundledModel, load_bundled_model
from muvera_core.encoders.reports import TextReports
from muvera_core.encoders.texts import require_unicode_texts
from muvera_core.encoders.tokenizing import LimitedTokenizer, Wordpieces
from muvera_core.encoders.windows import Window, split_into_windows
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings
from muvera_core.validation import require_count

ASSETS = Path(__file__).with_name("assets")
_N_MARKERS = 2  # [CLS] and [SEP] around every window
# Attributes that a copy makes anew.
_LOADED = ("_model", "_tokenizer", "_first_tokens", "_reports")


class BundledEncoder:
    """Token embeddings of English text, with nothing to download and no PyTorch.

    A text of up to 510 wordpieces is encoded whole, a longer one in overlapping windows of 254. Each window is
    encoded on its own, so a text's vectors never depend on the other texts of the call. The [CLS] vector at the start
    of every window and the [SEP] vector at its end are kept: they stand for the window as a whole.

    The vocabulary lacks most characters of other scripts, and emoji. A word with such a character gets one vector per
    character, made from the characters alone, so that it matches the same characters and nothing else. A longer
    English "word", such as 200 characters of base64, gets one vector. A window in which nothing is known has no [CLS]
    and [SEP], because they would match those of every other such window. If a third of a text is unknown, an
    UnknownTextWarning says so, once for documents and once for queries.

    Encoders can be pickled and copied: the copy loads the model's files again.

    Args:
        num_threads: number of windows that are encoded at the same time; by default one per available core.
        max_document_tokens: number of wordpieces, and characters of unknown words, of a document that are encoded.
            The rest is left out with a TruncatedTextWarning.
        max_query_tokens: the same for a query.

    Raises:
        InvalidInputError: an argument is below 1.
        EncoderError: the model files are missing or damaged.

    Example:
        >>> encoder = BundledEncoder()
        >>> encoder.encode_queries(["who wrote Faust?"]).vectors.shape
        (6, 128)
    """

    def __init__(
        self, num_threads: int | None = None, max_document_tokens: int = 16_384, max_query_tokens: int = 512
    ) -> None:
        self._num_threads = None if num_threads is None else require_count("num_threads", num_threads)
        self._max_document_tokens = require_count("max_document_tokens", max_document_tokens)
        self._max_query_tokens = require_count("max_query_tokens", max_query_tokens)
        self._load()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _LOADED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._load()

    @property
    def dimension(self) -> int:
        """Width of a token vector: 128."""
        return self._model.dimension

    @property
    def fingerprint(self) -> str:
        """Identifies the model files, the windows, and how the vectors of unknown words are made.

        The token limits are not part of it: they change no vector.
        """
        return self._model.fingerprint

    @property
    def settings(self) -> dict[str, Any]:
        """The token limits, as the constructor takes them."""
        return {"max_document_tokens": self._max_document_tokens, "max_query_tokens": self._max_query_tokens}

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of passages, in order.

        Raises:
            InvalidInputError: a text is not a str, or holds half of a surrogate pair.
        """
        wordpieces = self._tokenize(texts, self._max_document_tokens)
        self._reports.documents(wordpieces, self._max_document_tokens)
        return self._encode(wordpieces)

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of queries, in order. Only the limit differs from ``encode_documents``.

        Raises:
            InvalidInputError: a text is not a str, or holds half of a surrogate pair.
        """
        wordpieces = self._tokenize(texts, self._max_query_tokens)
        self._reports.queries(wordpieces, self._max_query_tokens)
        return self._encode(wordpieces)

    def document_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_documents([text])``, int64, shape (tokens, 2)."""
        return self._spans(self._tokenize([text], self._max_document_tokens)[0])

    def query_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_queries([text])``, int64, shape (tokens, 2)."""
        return self._spans(self._tokenize([text], self._max_query_tokens)[0])

    def _load(self) -> None:
        self._model = load_bundled_model(ASSETS)
        self._tokenizer = self._model.tokenizer
        self._first_tokens = LimitedTokenizer(self._tokenizer, self._model.unknown_id, splits_unknown=True)
        self._reports = TextReports(
            "Split it into passages, or raise max_document_tokens", "Shorten it, or raise max_query_tokens"
        )

    def _tokenize(self, texts: Sequence[str], limit: int) -> list[Wordpieces]:
        return self._first_tokens(require_unicode_texts(texts), limit)

    def _windows(self, wordpieces: Wordpieces) -> list[Window]:
        n = len(wordpieces.ids)
        # Measured: splitting a text that fits loses accuracy, and so do windows of full length for a longer text.
        size = self._model.positions if n + _N_MARKERS <= self._model.positions else self._model.window_size
        return split_into_windows(n, size - _N_MARKERS, self._model.window_overlap)

    def _encode(self, wordpieces: Sequence[Wordpieces]) -> TokenEmbeddings:
        jobs: list[tuple[Wordpieces, Window, slice]] = []
        offsets = [0]
        stop = 0
        for pieces in wordpieces:
            for window in self._windows(pieces):
                start, stop = stop, stop + _n_tokens(pieces, window)
                jobs.append((pieces, window, slice(start, stop)))
            offsets.append(stop)
        vectors = np.empty((stop, self.dimension), dtype=np.float32)

        def run(job: tuple[Wordpieces, Window, slice]) -> None:
            pieces, window, rows = job
            vectors[rows] = _window_vectors(self._model, pieces, window)

        n_threads = min(self._num_threads or _available_cores(), len(jobs))
        if n_threads <= 1:
            for job in jobs:
                run(job)
        else:
            # onnxruntime releases the GIL. One window per thread keeps the cores busier than several threads per
            # window.
            with ThreadPoolExecutor(n_threads) as pool:
                for _ in pool.map(run, jobs):
                    pass
        return TokenEmbeddings(vectors, np.array(offsets))

    def _spans(self, wordpieces: Wordpieces) -> IntArray:
        spans: list[tuple[int, int]] = []
        for window in self._windows(wordpieces):
            kept = wordpieces.token_spans(window.keep_start, window.keep_stop)
            if wordpieces.have_words(window.start, window.stop):
                start, end = (kept[0][0], kept[-1][1]) if kept else (0, 0)
                kept = [(start, start), *kept, (end, end)]
            spans += kept
        return np.array(spans, dtype=np.int64)


def _n_tokens(pieces: Wordpieces, window: Window) -> int:
    n = len(pieces.token_spans(window.keep_start, window.keep_stop))
    return n + _N_MARKERS if pieces.have_words(window.start, window.stop) else n


def _window_vectors(model: BundledModel, pieces: Wordpieces, window: Window) -> FloatArray:
    """The vectors that are kept of a window, shape (tokens, dimension)."""
    kept = range(window.keep_start, window.keep_stop)
    has_markers = pieces.have_words(window.start, window.stop)
    n_unknown = sum(place in kept for place in pieces.unknown)
    if n_unknown == len(kept) and not has_markers:
        return np.concatenate([pieces.unknown[place].vectors(model.dimension) for place in kept])
    states = model.states(pieces.ids[window.start : window.stop])
    # Row 0 is [CLS], so wordpiece j of the text is row j - start + 1.
    rows = states[kept.start - window.start + 1 : kept.stop - window.start + 1]
    if n_unknown:
        rows = np.concatenate(
            [
                pieces.unknown[place].vectors(model.dimension) if place in pieces.unknown else row[None]
                for place, row in zip(kept, rows, strict=True)
            ]
        )
    return np.concatenate([states[:1], rows, states[-1:]]) if has_markers else rows


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

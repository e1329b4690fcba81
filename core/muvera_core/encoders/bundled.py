"""The encoder that ships with muvera: token states of all-MiniLM-L6-v2 in 128 dimensions, int8, on the CPU."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from muvera_core.encoders.texts import require_unicode_texts, warn_if_truncated
from muvera_core.encoders.windows import Window, split_into_windows
from muvera_core.errors import EncoderError
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings
from muvera_core.validation import require_count

ASSETS = Path(__file__).with_name("assets")
_N_MARKERS = 2  # [CLS] and [SEP] around every window


@dataclass(frozen=True)
class _Wordpieces:
    ids: list[int]
    spans: list[tuple[int, int]]
    n_in_text: int


class BundledEncoder:
    """Token embeddings of English text, with nothing to download and no PyTorch.

    A text of up to 510 wordpieces is encoded whole, a longer one in overlapping windows of 254. Each window is
    encoded on its own, so a text's vectors never depend on the other texts of the call. The [CLS] vector at the start
    of every window and the [SEP] vector at its end are kept: they stand for the window as a whole.

    Args:
        num_threads: number of windows that are encoded at the same time; by default one per available core.
        max_document_tokens: number of wordpieces of a document that are encoded. The rest is left out with a
            TruncatedTextWarning.
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
        if num_threads is None:
            num_threads = _available_cores()
        self._num_threads = require_count("num_threads", num_threads)
        self._max_document_tokens = require_count("max_document_tokens", max_document_tokens)
        self._max_query_tokens = require_count("max_query_tokens", max_query_tokens)
        self._load(ASSETS)

    @property
    def dimension(self) -> int:
        """Width of a token vector: 128."""
        return self._dimension

    @property
    def fingerprint(self) -> str:
        """Identifies the model files and the windows. The token limits are not part of it: they change no vector."""
        return f"bundled-minilm-{self._files_digest}-p{self._positions}-w{self._window_size}-o{self._window_overlap}"

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of passages, in order.

        Raises:
            InvalidInputError: a text is not a str, or holds half of a surrogate pair.
        """
        return self._encode(texts, self._max_document_tokens)

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of queries, in order. Only the limit differs from ``encode_documents``.

        Raises:
            InvalidInputError: a text is not a str, or holds half of a surrogate pair.
        """
        return self._encode(texts, self._max_query_tokens)

    def document_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_documents([text])``, int64, shape (tokens, 2)."""
        return self._spans(self._tokenize([text], self._max_document_tokens)[0])

    def query_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_queries([text])``, int64, shape (tokens, 2)."""
        return self._spans(self._tokenize([text], self._max_query_tokens)[0])

    def _load(self, folder: Path) -> None:
        try:
            settings = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
            for name, file in settings["files"].items():
                # Only the size: hashing 23 MB at every start is slow, and most damage is a file cut short.
                size = (folder / name).stat().st_size
                if size != file["bytes"]:
                    raise EncoderError(
                        f"{folder / name} has {size} bytes, expected {file['bytes']}: reinstall muvera-core"
                    )
            self._dimension: int = settings["dimension"]
            self._positions: int = settings["positions"]
            self._window_size: int = settings["window_tokens"]
            self._window_overlap: int = settings["window_overlap"]
            self._files_digest = "-".join(file["sha256"][:12] for file in settings["files"].values())
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            # "[SEP]" written in a text is text, not a marker.
            self._tokenizer.encode_special_tokens = True
            self._cls, self._sep = (self._tokenizer.token_to_id(marker) for marker in ("[CLS]", "[SEP]"))
            onnxruntime.disable_telemetry_events()  # what users encode is private
            self._session = onnxruntime.InferenceSession(
                folder / "model.onnx", _session_options(), providers=["CPUExecutionProvider"]
            )
        except EncoderError:
            raise
        except Exception as error:  # tokenizers and onnxruntime raise bare Exception and RuntimeError
            raise EncoderError(
                f"the bundled encoder in {folder} cannot be loaded ({error}): reinstall muvera-core"
            ) from error

    def _tokenize(self, texts: Sequence[str], limit: int) -> list[_Wordpieces]:
        encodings = self._tokenizer.encode_batch(require_unicode_texts(texts), add_special_tokens=False)
        return [
            _Wordpieces(encoding.ids[:limit], encoding.offsets[:limit], len(encoding.ids)) for encoding in encodings
        ]

    def _windows(self, n_wordpieces: int) -> list[Window]:
        # Measured: splitting a text that fits loses accuracy, and so do windows of full length for a longer text.
        size = self._positions if n_wordpieces + _N_MARKERS <= self._positions else self._window_size
        return split_into_windows(n_wordpieces, size - _N_MARKERS, self._window_overlap)

    def _encode(self, texts: Sequence[str], limit: int) -> TokenEmbeddings:
        wordpieces = self._tokenize(texts, limit)
        for text, pieces in zip(texts, wordpieces, strict=True):
            warn_if_truncated(text, pieces.n_in_text, limit)
        jobs: list[tuple[list[int], Window, slice]] = []
        offsets = [0]
        stop = 0
        for pieces in wordpieces:
            for window in self._windows(len(pieces.ids)):
                start, stop = stop, stop + window.keep_stop - window.keep_start + _N_MARKERS
                jobs.append((pieces.ids, window, slice(start, stop)))
            offsets.append(stop)
        vectors = np.empty((stop, self._dimension), dtype=np.float32)

        def run(job: tuple[list[int], Window, slice]) -> None:
            ids, window, rows = job
            vectors[rows] = self._encode_window(ids, window)

        if len(jobs) <= 1 or self._num_threads == 1:
            for job in jobs:
                run(job)
        else:
            # onnxruntime releases the GIL. One window per thread keeps the cores busier than several threads per
            # window.
            with ThreadPoolExecutor(min(self._num_threads, len(jobs))) as pool:
                for _ in pool.map(run, jobs):
                    pass
        return TokenEmbeddings(vectors, np.array(offsets))

    def _encode_window(self, ids: list[int], window: Window) -> FloatArray:
        input_ids = np.array([[self._cls, *ids[window.start : window.stop], self._sep]], dtype=np.int64)
        output: FloatArray = self._session.run(None, {"input_ids": input_ids})[0]
        # Row 0 is [CLS], so wordpiece j of the text is row j - start + 1.
        first, last = window.keep_start - window.start + 1, window.keep_stop - window.start + 1
        return np.concatenate([output[:1], output[first:last], output[-1:]])

    def _spans(self, text: _Wordpieces) -> IntArray:
        spans: list[tuple[int, int]] = []
        for window in self._windows(len(text.ids)):
            kept = text.spans[window.keep_start : window.keep_stop] or [(0, 0)]
            start, end = kept[0][0], kept[-1][1]
            spans += [(start, start), *(kept if text.spans else []), (end, end)]
        return np.array(spans, dtype=np.int64)


def _session_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Without this, 8-bit products overflow on x86 processors without VNNI, and vectors differ between machines.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

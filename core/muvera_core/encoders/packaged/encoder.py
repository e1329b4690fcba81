"""What the encoders that come with a package have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from muvera_core.encoders.onnx.engine import OnnxEngine, TextKind
from muvera_core.encoders.onnx.session import require_device
from muvera_core.encoders.packaged.fingerprints import PackagedFingerprints
from muvera_core.encoders.packaged.model import PackagedModel
from muvera_core.encoders.text.reports import TextReports
from muvera_core.encoders.text.unknown_words import with_marks
from muvera_core.token_embeddings import IntArray, TokenEmbeddings
from muvera_core.validation import require_count

# Attributes that a copy makes anew.
_LOADED = ("_model", "_engine", "_documents", "_queries", "_reports")


class PackagedEncoder:
    """Runs a model that comes with a package. Subclasses say which, and what vectors they offer.

    Attributes:
        fingerprints: the names of the vectors.
    """

    fingerprints: PackagedFingerprints

    def __init__(
        self, num_threads: int | None, max_document_tokens: int, max_query_tokens: int, dimension: int, device: str
    ) -> None:
        self._device = require_device(device)
        self._num_threads = None if num_threads is None else require_count("num_threads", num_threads)
        self._max_document_tokens = require_count("max_document_tokens", max_document_tokens)
        self._max_query_tokens = require_count("max_query_tokens", max_query_tokens)
        self._dimension = dimension
        self._load()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _LOADED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._load()

    def load_model(self, device: str) -> PackagedModel:
        """Load the model's files onto a device."""
        raise NotImplementedError

    def make_reports(self, document_remedy: str, query_remedy: str) -> TextReports:
        """The warnings about texts."""
        raise NotImplementedError

    @property
    def dimension(self) -> int:
        """Width of a token vector."""
        return self._dimension

    @property
    def fingerprint(self) -> str:
        """Identifies the model files, the windows, the dimension, and how the vectors of unknown words are made.

        The token limits are not part of it: they change no vector. Nor is the device.
        """
        return self.fingerprints.of(self._model.settings, self._dimension)

    @property
    def settings(self) -> dict[str, Any]:
        """The token limits and the dimension, as the constructor takes them."""
        return {
            "max_document_tokens": self._max_document_tokens,
            "max_query_tokens": self._max_query_tokens,
            "dimension": self._dimension,
        }

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of passages, in order.

        Raises:
            InvalidInputError: a text is not a str, or holds half of a surrogate pair.
        """
        read = self._documents.read(texts)
        self._reports.documents([text.wordpieces for text in read], self._max_document_tokens)
        return self._engine.encode(self._documents, read)

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of queries, in order. The limit differs from that of ``encode_documents``, and so may a prefix.

        Raises:
            InvalidInputError: a text is not a str, or holds half of a surrogate pair.
        """
        read = self._queries.read(texts)
        self._reports.queries([text.wordpieces for text in read], self._max_query_tokens)
        return self._engine.encode(self._queries, read)

    def document_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_documents([text])``, int64, shape (tokens, 2)."""
        return with_marks(text, self._documents.spans(text))

    def query_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_queries([text])``, int64, shape (tokens, 2)."""
        return with_marks(text, self._queries.spans(text))

    def _load(self) -> None:
        self._model = self.load_model(self._device)
        self._engine = OnnxEngine.on(self._device, self._model.model, self._dimension, num_threads=self._num_threads)
        self._documents = TextKind(self._model.documents, self._model.format, self._max_document_tokens)
        self._queries = TextKind(self._model.queries, self._model.format, self._max_query_tokens)
        self._reports = self.make_reports(
            "Split it into passages, or raise max_document_tokens", "Shorten it, or raise max_query_tokens"
        )

"""The encoder that ships with muvera: all-MiniLM-L6-v2 trained for MaxSim, up to 128 dimensions, int8, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from muvera_core.encoders.bundled_fingerprint import BUNDLED_DIMENSION, bundled_fingerprint
from muvera_core.encoders.bundled_model import load_bundled_model
from muvera_core.encoders.onnx.engine import OnnxEngine, TextKind
from muvera_core.encoders.reports import TextReports
from muvera_core.errors import InvalidInputError
from muvera_core.token_embeddings import IntArray, TokenEmbeddings
from muvera_core.validation import require_count

ASSETS = Path(__file__).with_name("assets")
# Attributes that a copy makes anew.
_LOADED = ("_model", "_engine", "_documents", "_queries", "_reports")


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
        dimension: width of a token vector, from 1 to 128. The first directions of the model are kept, and the vectors
            are scaled to unit length again. With 64, an index takes half the space and reranks faster, and finds
            slightly less.

    Raises:
        InvalidInputError: an argument is below 1, or the dimension above 128.
        EncoderError: the model files are missing or damaged.

    Example:
        >>> encoder = BundledEncoder()
        >>> encoder.encode_queries(["who wrote Faust?"]).vectors.shape
        (6, 128)
    """

    def __init__(
        self,
        num_threads: int | None = None,
        max_document_tokens: int = 16_384,
        max_query_tokens: int = 512,
        dimension: int = BUNDLED_DIMENSION,
    ) -> None:
        self._num_threads = None if num_threads is None else require_count("num_threads", num_threads)
        self._max_document_tokens = require_count("max_document_tokens", max_document_tokens)
        self._max_query_tokens = require_count("max_query_tokens", max_query_tokens)
        self._dimension = require_count("dimension", dimension)
        if self._dimension > BUNDLED_DIMENSION:
            raise InvalidInputError(f"dimension must be at most {BUNDLED_DIMENSION}, got {self._dimension}")
        self._load()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _LOADED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._load()

    @property
    def dimension(self) -> int:
        """Width of a token vector."""
        return self._dimension

    @property
    def fingerprint(self) -> str:
        """Identifies the model files, the windows, the dimension, and how the vectors of unknown words are made.

        The token limits are not part of it: they change no vector.
        """
        return bundled_fingerprint(self._model.settings, self._dimension)

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
        """Token vectors of queries, in order. Only the limit differs from ``encode_documents``.

        Raises:
            InvalidInputError: a text is not a str, or holds half of a surrogate pair.
        """
        read = self._queries.read(texts)
        self._reports.queries([text.wordpieces for text in read], self._max_query_tokens)
        return self._engine.encode(self._queries, read)

    def document_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_documents([text])``, int64, shape (tokens, 2)."""
        return self._documents.spans(text)

    def query_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_queries([text])``, int64, shape (tokens, 2)."""
        return self._queries.spans(text)

    def _load(self) -> None:
        self._model = load_bundled_model(ASSETS)
        self._engine = OnnxEngine(self._model.model, self._dimension, num_threads=self._num_threads)
        documents, queries = (
            TextKind(self._model.tokenizer, self._model.format, limit)
            for limit in (self._max_document_tokens, self._max_query_tokens)
        )
        self._documents, self._queries = documents, queries
        self._reports = TextReports(
            "Split it into passages, or raise max_document_tokens",
            "Shorten it, or raise max_query_tokens",
            reads_latin_only=True,
        )

"""An encoder whose vectors come from the user's functions, such as calls of an encoding service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from muvera_core.encoders.text.naming import require_unicode_texts, unreported
from muvera_core.errors import EncoderError, InvalidInputError
from muvera_core.token_embeddings import IntArray, TokenEmbeddings, unit_length
from muvera_core.validation import counted, require_count, require_text

EncodeTexts = Callable[[list[str]], Sequence[npt.ArrayLike] | TokenEmbeddings]
FindSpans = Callable[[str], npt.ArrayLike]


class CallableEncoder:
    """A ``TokenEncoder`` made of functions: of an encoding service behind HTTP, or of any library.

    The functions get a list of texts and return one array of token vectors per text. They retry by themselves: what
    they raise reaches the caller of ``add`` or ``search`` as it is, and the index stays as it was. If several threads
    use the encoder, they call the functions at the same time. The encoder can be pickled if its functions can.

    Args:
        encode_queries: turns a list of questions into a list of arrays, each of shape (tokens, dimension). Vectors are
            scaled to unit length.
        encode_documents: the same for passages. It has to encode long passages whole.
        dimension: width of a token vector.
        name: names the model and every setting that changes its vectors. An index opens only with the same name.
        query_spans: gives the start and end character of each vector of a question, shape (tokens, 2). Without it,
            ``explain`` does not know the words.
        document_spans: the same for a passage.

    Raises:
        InvalidInputError: an argument cannot be called, the dimension is below 1, or the name is empty.

    Example:
        >>> def colours(texts):
        ...     return [[[1.0, 0.0] if word == "red" else [0.0, 1.0] for word in text.split()] for text in texts]
        >>> encoder = CallableEncoder(colours, colours, dimension=2, name="colours-1")
        >>> encoder.encode_queries(["red car"]).vectors.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(
        self,
        encode_queries: EncodeTexts,
        encode_documents: EncodeTexts,
        dimension: int,
        name: str,
        *,
        query_spans: FindSpans | None = None,
        document_spans: FindSpans | None = None,
    ) -> None:
        self._encode_queries = _require_callable("encode_queries", encode_queries)
        self._encode_documents = _require_callable("encode_documents", encode_documents)
        self._dimension, self._name = require_count("dimension", dimension), require_text("name", name)
        self._query_spans = None if query_spans is None else _require_callable("query_spans", query_spans)
        self._document_spans = None if document_spans is None else _require_callable("document_spans", document_spans)

    @property
    def dimension(self) -> int:
        """Width of a token vector."""
        return self._dimension

    @property
    def fingerprint(self) -> str:
        """The name and the dimension."""
        return f"callable-{self._name}-{self._dimension}"

    @property
    def settings(self) -> dict[str, Any]:
        """The dimension and the name."""
        return {"dimension": self._dimension, "name": self._name}

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of passages, in order.

        Raises:
            InvalidInputError: ``texts`` is not a sequence of valid strings.
            EncoderError: the function did not return one array of shape (tokens, dimension) per text.
        """
        return self._encode("encode_documents", self._encode_documents, texts)

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of questions, in order. Raises the same errors as ``encode_documents``."""
        return self._encode("encode_queries", self._encode_queries, texts)

    def document_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_documents([text])``, int64, shape (tokens, 2).

        All of them are empty if the encoder was made without ``document_spans``.
        """
        return self._spans("document_spans", self._document_spans, self.encode_documents, text)

    def query_spans(self, text: str) -> IntArray:
        """The same for ``encode_queries([text])``."""
        return self._spans("query_spans", self._query_spans, self.encode_queries, text)

    def _encode(self, name: str, function: EncodeTexts, texts: Sequence[str]) -> TokenEmbeddings:
        checked = require_unicode_texts(texts)
        if not checked:
            return TokenEmbeddings.from_list([], dimension=self._dimension)
        returned = function(checked)
        try:
            arrays = list(returned)
            if len(arrays) != len(checked):
                raise InvalidInputError(f"{counted(len(arrays), 'array')}")
            embeddings = TokenEmbeddings.from_list(arrays, dimension=self._dimension)
        except (InvalidInputError, TypeError) as error:
            raise EncoderError(
                f"{name} of the encoder {self._name!r} got {counted(len(checked), 'text')} and returned what cannot be "
                f"used: {error}. It has to return one array of shape (tokens, {self._dimension}) per text"
            ) from error
        return TokenEmbeddings(unit_length(embeddings.vectors), embeddings.offsets)

    def _spans(
        self, name: str, function: FindSpans | None, encode: Callable[[Sequence[str]], TokenEmbeddings], text: str
    ) -> IntArray:
        if function is None:
            with unreported():
                return np.zeros((len(encode([text]).vectors), 2), dtype=np.int64)
        try:
            spans = np.asarray(function(text))
        except ValueError:  # rows of different lengths
            spans = np.empty(0)
        if spans.ndim != 2 or spans.shape[1] != 2 or spans.dtype.kind not in "iu":
            raise EncoderError(
                f"{name} of the encoder {self._name!r} returned {spans.dtype} of shape {spans.shape}: "
                "it has to return whole numbers of shape (tokens, 2)"
            )
        return spans.astype(np.int64)


def _require_callable(name: str, value: Any) -> Any:
    if not callable(value):
        raise InvalidInputError(f"{name} must be a function of a list of texts, got {type(value).__name__}")
    return value

"""For those who bring their own token embeddings: an index with this encoder takes vectors and no text to encode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from muvera_core.errors import InvalidInputError
from muvera_core.token_embeddings import IntArray, TokenEmbeddings
from muvera_core.validation import require_count, require_text

_PREFIX = "precomputed-"


class PrecomputedEmbeddings:
    """Stands where a ``TokenEncoder`` would, for embeddings that were made elsewhere.

    ``add_embeddings`` and ``search_embeddings`` work as ever; what needs a text encoded raises InvalidInputError.
    """

    def __init__(self, dimension: int, model: str) -> None:
        """Describe the embeddings.

        Args:
            dimension: width of a token vector.
            model: any name for what made them. An index opens only under the name it was created with.

        Raises:
            InvalidInputError: a dimension below 1, or no name.
        """
        self._dimension, self._model = require_count("dimension", dimension), require_text("model", model)

    @property
    def dimension(self) -> int:
        """Width of a token vector."""
        return self._dimension

    @property
    def fingerprint(self) -> str:
        """The model's name and the dimension."""
        return f"{_PREFIX}{self._model}-{self._dimension}"

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Raise InvalidInputError: there is no model here."""
        self._refuse()

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Raise InvalidInputError: there is no model here."""
        self._refuse()

    def document_spans(self, text: str) -> IntArray:
        """Raise InvalidInputError: there is no model here."""
        self._refuse()

    def query_spans(self, text: str) -> IntArray:
        """Raise InvalidInputError: there is no model here."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InvalidInputError(
            "this index takes token embeddings, not text: use add_embeddings and search_embeddings, "
            "or create it with an encoder"
        )


def is_precomputed(fingerprint: str) -> bool:
    """Whether an index with this encoder holds token embeddings that were made elsewhere, so no text can be encoded."""
    return fingerprint.startswith(_PREFIX)

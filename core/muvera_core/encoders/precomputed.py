"""The encoder of an index whose token embeddings are made elsewhere: it cannot encode text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from muvera_core.errors import InvalidInputError
from muvera_core.token_embeddings import IntArray, TokenEmbeddings
from muvera_core.validation import require_count, require_text

_PREFIX = "precomputed-"


class PrecomputedEmbeddings:
    """Takes the place of a ``TokenEncoder`` if the token embeddings are made elsewhere.

    ``add_embeddings`` and ``search_embeddings`` work as usual; whatever has to encode a text raises InvalidInputError.
    """

    def __init__(self, dimension: int, model: str) -> None:
        """Describe the embeddings.

        Args:
            dimension: width of a token vector.
            model: any name for the model that makes them. An index opens only with the name it was created with.

        Raises:
            InvalidInputError: the dimension is below 1, or the name is empty.
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

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"dimension": self._dimension, "model": self._model}

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Raise InvalidInputError: there is no model."""
        self._refuse()

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Raise InvalidInputError: there is no model."""
        self._refuse()

    def document_spans(self, text: str) -> IntArray:
        """Raise InvalidInputError: there is no model."""
        self._refuse()

    def query_spans(self, text: str) -> IntArray:
        """Raise InvalidInputError: there is no model."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InvalidInputError(
            "this index takes token embeddings, not text: use add_embeddings and search_embeddings of the index, "
            "or create it with an encoder"
        )


def is_precomputed(fingerprint: str) -> bool:
    """Whether the fingerprint is that of ``PrecomputedEmbeddings``, which cannot encode text."""
    return fingerprint.startswith(_PREFIX)

"""What the index needs of an encoder. Anything with these members will do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from muvera_core.errors import EncoderError, InvalidInputError
from muvera_core.token_embeddings import IntArray, TokenEmbeddings
from muvera_core.validation import require_count, require_text, shown


@runtime_checkable
class TokenEncoder(Protocol):
    """Turns texts into one unit-length vector per token.

    Encoding must not depend on what else is in the batch. A text that is longer than the model's window
    must be encoded whole, in windows, or be reported with a ``TruncatedTextWarning``.
    """

    @property
    def dimension(self) -> int:
        """Width of a token vector."""

    @property
    def fingerprint(self) -> str:
        """Names the model and every setting that changes its vectors.

        It is stored with an index; one with another fingerprint can't open that index.
        """

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of passages, in order. Every text gets at least one token."""

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of questions, in order. Every text gets at least one token."""

    def document_spans(self, text: str) -> IntArray:
        """Where each token of ``encode_documents([text])`` stands in the text.

        Returns:
            int64, shape (tokens, 2): start and end character of each token. A marker that stands for no
            characters ([CLS], [MASK], …) has start == end.
        """

    def query_spans(self, text: str) -> IntArray:
        """The same as ``document_spans`` for ``encode_queries([text])``."""


def require_encoder(encoder: object) -> TokenEncoder:
    """Something with the members of a token encoder, of which dimension and fingerprint make sense."""
    if not isinstance(encoder, TokenEncoder) or isinstance(encoder, type):
        raise InvalidInputError(
            f"encoder must be a TokenEncoder such as muvera_core.encoders.BundledEncoder(), got {shown(encoder)}"
        )
    try:
        require_count("the encoder's dimension", encoder.dimension)
        require_text("the encoder's fingerprint", encoder.fingerprint)
    except InvalidInputError as error:
        raise EncoderError(f"{error}: see muvera_core.TokenEncoder") from error
    return encoder

"""The interface of a token encoder. Any object with these members can be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeGuard, runtime_checkable

from muvera_core.errors import EncoderError, InvalidInputError
from muvera_core.token_embeddings import IntArray, TokenEmbeddings
from muvera_core.validation import require_count, require_text, shown

if TYPE_CHECKING:
    from PIL.Image import Image


@runtime_checkable
class TokenEncoder(Protocol):
    """Turns texts into one unit-length vector per token.

    A text's vectors must not depend on the other texts of the call. A text that is longer than the model's window must
    be encoded whole, in several windows; if a part is left out, a ``TruncatedTextWarning`` must say so.

    An encoder can have a property ``settings`` as well: a mapping of JSON values with the arguments that it was made
    with, apart from those that concern one machine only (paths, devices, threads). An index stores it, so that people
    can tell which encoder to open it with.
    """

    @property
    def dimension(self) -> int:
        """Width of a token vector."""

    @property
    def fingerprint(self) -> str:
        """Identifies the model and every setting that changes its vectors.

        It is stored with an index. An encoder with another fingerprint cannot open that index.
        """

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of passages, in order. Every text gets at least one token."""

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of queries, in order. Every text gets at least one token."""

    def document_spans(self, text: str) -> IntArray:
        """The place in the text of each token of ``encode_documents([text])``.

        Returns:
            int64, shape (tokens, 2): start and end character of each token. A marker without characters in the text
            ([CLS], [MASK], …) has start == end.
        """

    def query_spans(self, text: str) -> IntArray:
        """The same as ``document_spans`` for ``encode_queries([text])``."""


@runtime_checkable
class ImageEncoder(TokenEncoder, Protocol):
    """A token encoder that also turns images, such as pages, into vectors that its queries are compared with.

    An image's vectors must not depend on the other images of the call.

    A class whose models differ in this can have a property ``embeds_images``, which says whether this one's can. Its
    other members then raise InvalidInputError if it is False.
    """

    def encode_images(self, images: Sequence[Image]) -> TokenEmbeddings:
        """Token vectors of images of Pillow, upright and in mode RGB, in order. Every image gets at least one token."""

    def image_patches(self, width: int, height: int) -> IntArray:
        """The part of the image that each token of ``encode_images`` stands for.

        The patches have equal sizes and cover the image, row by row from the top left.

        Args:
            width: the image's width in pixels.
            height: its height in pixels.

        Returns:
            int64, shape (tokens, 2): row and column of each token's patch, counted from 0. A token that stands for no
            patch, such as a marker or a word of a prompt, has -1 and -1.
        """


def is_image_encoder(encoder: object) -> TypeGuard[ImageEncoder]:
    """Whether an encoder embeds images."""
    # Before Python 3.12, isinstance reads all members. Those of an encoder behind a service take a request.
    could = hasattr(encoder, "encode_images") and isinstance(encoder, ImageEncoder)
    return could and bool(getattr(encoder, "embeds_images", True))


def require_image_encoder(encoder: TokenEncoder) -> ImageEncoder:
    """Return ``encoder`` if it embeds images. Raises InvalidInputError otherwise."""
    if not is_image_encoder(encoder):
        raise InvalidInputError(
            f"the index's encoder, {type(encoder).__name__}, embeds no images: make an index with a "
            "SentenceTransformerEncoder whose model embeds page images, such as ColQwen, or with another "
            "muvera_core.ImageEncoder"
        )
    return encoder


def require_encoder(encoder: object) -> TokenEncoder:
    """Return ``encoder`` if it is a valid token encoder.

    Raises:
        InvalidInputError: it does not have the members of a token encoder.
        EncoderError: its dimension or fingerprint is invalid.
    """
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

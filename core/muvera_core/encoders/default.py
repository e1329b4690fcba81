"""The encoder that is used if none is given."""

from __future__ import annotations

from muvera_core.encoders.bundled_fingerprint import BUNDLED_DIMENSION, bundled_dimension
from muvera_core.encoders.multilingual_fingerprint import multilingual_dimension
from muvera_core.encoders.protocol import TokenEncoder


def default_encoder(made_with: str | None = None) -> TokenEncoder:
    """The encoder that comes with the package.

    Args:
        made_with: the fingerprint of the encoder of an index. If that was this encoder in another dimension, the
            result has that dimension. If it was the multilingual encoder, that is the result.

    Raises:
        MissingExtraError: the index was made with the multilingual encoder, which is not installed.
    """
    multilingual = None if made_with is None else multilingual_dimension(made_with)
    if multilingual is not None:
        from muvera_core.encoders.multilingual import MultilingualEncoder

        return MultilingualEncoder(dimension=multilingual)
    from muvera_core.encoders.bundled import BundledEncoder

    dimension = None if made_with is None else bundled_dimension(made_with)
    if dimension is None or not 1 <= dimension <= BUNDLED_DIMENSION:
        return BundledEncoder()
    return BundledEncoder(dimension=dimension)


PACKAGED_ENCODERS = ("bundled", "multilingual")
"""The names of the encoders that need no folder of a model."""


def packaged_encoder(name: str, made_with: str | None = None) -> TokenEncoder:
    """The encoder of a name of PACKAGED_ENCODERS.

    Args:
        name: the name.
        made_with: the fingerprint of the encoder of an index. If that was the named one in some dimension, the result
            has that dimension.

    Raises:
        MissingExtraError: the encoder is not installed.
    """
    dimension_of = multilingual_dimension if name == "multilingual" else bundled_dimension
    if made_with is not None and dimension_of(made_with) is not None:
        return default_encoder(made_with)
    if name == "multilingual":
        from muvera_core.encoders.multilingual import MultilingualEncoder

        return MultilingualEncoder()
    return default_encoder()

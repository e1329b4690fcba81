"""The encoder that is used if none is given."""

from __future__ import annotations

from muvera_core.encoders.bundled_fingerprint import BUNDLED_DIMENSION, bundled_dimension
from muvera_core.encoders.protocol import TokenEncoder


def default_encoder(made_with: str | None = None) -> TokenEncoder:
    """The encoder that comes with the package.

    Args:
        made_with: the fingerprint of the encoder of an index. If that was this encoder in another dimension, the
            result has that dimension.
    """
    from muvera_core.encoders.bundled import BundledEncoder

    dimension = None if made_with is None else bundled_dimension(made_with)
    if dimension is None or not 1 <= dimension <= BUNDLED_DIMENSION:
        return BundledEncoder()
    return BundledEncoder(dimension=dimension)

"""The encoder that is used if none is given."""

from __future__ import annotations

from muvera_core.encoders.protocol import TokenEncoder


def default_encoder() -> TokenEncoder:
    """The encoder that comes with the package."""
    from muvera_core.encoders.bundled import BundledEncoder

    return BundledEncoder()

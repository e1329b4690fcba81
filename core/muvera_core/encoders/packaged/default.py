"""The encoders that can be had by name, and the one that is used if none is given."""

from __future__ import annotations

from muvera_core.encoders.packaged.fingerprints import (
    BUNDLED,
    BUNDLED_DIMENSION,
    MULTILINGUAL,
    MULTILINGUAL_DIMENSIONS,
)
from muvera_core.encoders.protocol import TokenEncoder

PACKAGED_ENCODERS = ("bundled", "multilingual")
"""The names of the encoders that need no folder of a model."""

_WIDEST = MULTILINGUAL_DIMENSIONS[0]
_CPU = "cpu"


def default_encoder(made_with: str | None = None, device: str | None = None) -> TokenEncoder:
    """The encoder that is used if none is given.

    Args:
        made_with: the fingerprint of the encoder of an index. If that was one of ``PACKAGED_ENCODERS``, in any
            dimension, that is the result. Otherwise it is the bundled encoder.
        device: see ``BundledEncoder``. None is the CPU.

    Raises:
        InvalidInputError: the device has an unknown name.
        DeviceError: onnxruntime cannot use the device.
        MissingExtraError: the index was made with the multilingual encoder, which is not installed.
    """
    is_multilingual = made_with is not None and MULTILINGUAL.dimension(made_with) is not None
    return packaged_encoder("multilingual" if is_multilingual else "bundled", made_with, device)


def packaged_encoder(name: str, made_with: str | None = None, device: str | None = None) -> TokenEncoder:
    """The encoder of a name of ``PACKAGED_ENCODERS``.

    Args:
        name: the name.
        made_with: the fingerprint of the encoder of an index. If that was the named one in some dimension, the result
            has that dimension.
        device: see ``BundledEncoder``. None is the CPU.

    Raises:
        InvalidInputError: the device has an unknown name.
        DeviceError: onnxruntime cannot use the device.
        MissingExtraError: the encoder is not installed.
    """
    device = _CPU if device is None else device
    names = MULTILINGUAL if name == "multilingual" else BUNDLED
    dimension = None if made_with is None else names.dimension(made_with)
    if name == "multilingual":
        from muvera_core.encoders.packaged.multilingual import MultilingualEncoder

        known = dimension if dimension in MULTILINGUAL_DIMENSIONS else _WIDEST
        return MultilingualEncoder(dimension=known, device=device)
    from muvera_core.encoders.packaged.bundled import BundledEncoder

    if dimension is None or not 1 <= dimension <= BUNDLED_DIMENSION:
        dimension = BUNDLED_DIMENSION
    return BundledEncoder(dimension=dimension, device=device)

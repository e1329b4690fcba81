"""Makes an encoder of a name: that of a packaged encoder, or the folder of a model."""

from __future__ import annotations

import os

from muvera_core.encoders.model_folders import load_encoder
from muvera_core.encoders.packaged.default import PACKAGED_ENCODERS, default_encoder, packaged_encoder
from muvera_core.encoders.protocol import TokenEncoder


def named_encoder(
    name: str | os.PathLike[str] | None, made_with: str | None = None, device: str | None = None
) -> TokenEncoder:
    """The encoder of a name, as commands and services take it.

    Args:
        name: one of ``PACKAGED_ENCODERS``, or the folder of a model; see ``load_encoder``. A folder that has such a
            name needs its absolute path. None takes ``default_encoder``.
        made_with: the fingerprint of the encoder of an index that the encoder is for.
        device: what the encoder computes on, such as "cuda:1". None takes the encoder's own default.

    Raises:
        The errors of ``default_encoder``, ``packaged_encoder`` and ``load_encoder``.
    """
    if name is None:
        return default_encoder(made_with, device)
    if os.fspath(name) in PACKAGED_ENCODERS:
        return packaged_encoder(os.fspath(name), made_with, device)
    return load_encoder(name, made_with, device)

"""Refuses models whose configuration makes transformers fetch code from the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from muvera_core.errors import EncoderError


def refuse_hub_kernels(config: Mapping[str, Any], where: str) -> None:
    """Check that config.json names no attention of the form "owner/repository", which is compiled code on the hub.

    Args:
        config: the content of config.json.
        where: what a message calls that file.

    Raises:
        EncoderError: it names such code, which transformers would download.
    """
    for key, value in config.items():
        if "attn_implementation" in key and "/" in json.dumps(value):
            raise EncoderError(f"{where} names code on the hub, {key} {value!r}: remove that entry")

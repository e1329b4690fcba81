"""Pillow, which reads, converts and draws images."""

from __future__ import annotations

from typing import Any

from muvera_core.errors import MissingExtraError


def require_pillow() -> Any:
    """The module ``PIL.Image``. Raises MissingExtraError if Pillow is not installed."""
    try:
        import PIL.Image
    except ImportError as error:
        raise MissingExtraError("images need Pillow: pip install 'muvera-core[images]'") from error
    return PIL.Image

"""Page images: reads them, notes what an index has to know about them, and draws what matched on them."""

from __future__ import annotations

from muvera_core.images.drawing import heat_map
from muvera_core.images.pillow import require_pillow
from muvera_core.images.record import ImageRecord
from muvera_core.images.sources import ImageInput, ImageSource, UnreadableImageError, read_again, require_images

__all__ = [
    "ImageInput",
    "ImageRecord",
    "ImageSource",
    "UnreadableImageError",
    "heat_map",
    "read_again",
    "require_images",
    "require_pillow",
]

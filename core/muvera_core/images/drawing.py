"""Draws over an image where it matches a query."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from muvera_core.errors import InvalidInputError
from muvera_core.images.pillow import require_pillow
from muvera_core.images.sources import ImageInput, read_any
from muvera_core.validation import require_share, shown

if TYPE_CHECKING:
    from PIL.Image import Image

# The colour of the lowest and of the highest value, as red, green and blue.
_COLORS = np.array([[255, 225, 50], [230, 30, 20]], dtype=np.float64)


def heat_map(
    image: ImageInput,
    grid: npt.ArrayLike,
    *,
    value_range: tuple[float, float] | None = None,
    opacity: float = 0.6,
) -> Image:
    """The image under a grid of values: the lowest value is left clear, the highest is red.

    ``MuveraIndex.similarity_maps`` gives such grids.

    Args:
        image: a path, the bytes of an image file, or an image of Pillow. It is not changed.
        grid: a value for each patch of the image, shape (rows, columns). The patches have equal sizes and cover the
            image. NaN leaves a patch clear.
        value_range: the lowest and the highest value. None takes those of the grid. Give the same range for several
            grids to compare them.
        opacity: how much the highest value covers the image, from 0 to 1.

    Returns:
        An image of the same size, upright, in mode RGB.

    Raises:
        InvalidInputError: the image cannot be read, or the grid or the range is no such thing.
        MissingExtraError: Pillow is not installed.
    """
    pillow, opacity = require_pillow(), require_share("opacity", opacity)
    page = read_any(image)
    shares = _shares(grid, value_range)
    colors = _COLORS[0] + shares[..., None] * (_COLORS[1] - _COLORS[0])
    cover = np.dstack([colors, 255 * opacity * shares]).round().astype(np.uint8)
    layer = pillow.fromarray(cover).resize(page.size, pillow.Resampling.NEAREST)
    drawn: Image = pillow.alpha_composite(page.convert("RGBA"), layer).convert("RGB")
    return drawn


def _shares(grid: npt.ArrayLike, value_range: tuple[float, float] | None) -> npt.NDArray[np.float64]:
    """The values as shares of the range, shape (rows, columns); 0 for NaN."""
    try:
        values = np.asarray(grid, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 2 or not values.size or np.isinf(values).any():
        raise InvalidInputError(f"grid must hold numbers and have the shape (rows, columns), got {shown(grid)}")
    if value_range is None:
        value_range = (np.nanmin(values), np.nanmax(values)) if not np.isnan(values).all() else (0.0, 1.0)
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite([low, high]).all() and low <= high):
        raise InvalidInputError(f"value_range must be the lowest and the highest value, got {shown(value_range)}")
    shares = np.clip((values - low) / (high - low or 1.0), 0, 1)
    return np.nan_to_num(shares, nan=0.0)

"""Where the tokens of an image are in it: the grids in which the processors of vision models cut a page."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from muvera_core.encoders.sentence_transformer.inputs import TextInputs
from muvera_core.errors import EncoderError, InvalidInputError, MissingExtraError
from muvera_core.token_embeddings import IntArray

# Row and column of a token that is no patch.
_NOWHERE = -1


def embeds_images(model: Any) -> bool:
    """Whether a ``MultiVectorEncoder`` takes images."""
    return bool(model.supports("image"))


def require_images(images: Any) -> list[Any]:
    """The images, as a list.

    Raises:
        InvalidInputError: they are not a sequence of PIL images.
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL.Image import Image
    except ImportError as error:
        raise MissingExtraError("images need Pillow: pip install 'muvera-core[images]'") from error
    if not isinstance(images, (list, tuple)):
        raise InvalidInputError(f"images must be a list of PIL images, got {type(images).__name__}")
    for i, image in enumerate(images):
        if not isinstance(image, Image):
            raise InvalidInputError(f"images[{i}] must be a PIL image, got {type(image).__name__}: use PIL.Image.open")
    return list(images)


def patches_of(model: Any, inputs: TextInputs, width: int, height: int) -> IntArray:
    """Row and column of the patch of each vector of an image; (-1, -1) for a token of the text around it.

    The grid is that of the model's processor: fixed for ColPali, by the size of the image for ColQwen. Idefics3 and
    ColModernVBERT cut an image into tiles and add one small view of all of it. The patches of the tiles make one grid.
    A patch of the view, which stands for a part of the page, has the place of the middle of that part.

    Raises:
        EncoderError: the processor's grid is not known.
    """
    from PIL import Image

    blank = Image.new("RGB", (width, height))
    features = model.preprocess([blank], prompt=inputs.prompt, task="document")
    ids = features["input_ids"][0].numpy()
    is_patch = ids == _image_token(model)
    grid = _grid(model, blank, int(is_patch.sum()))
    if len(grid) != is_patch.sum():
        raise EncoderError(
            f"{type(model.processor).__name__} gives an image of {width} x {height} pixels {int(is_patch.sum())} "
            f"patches, but its grid has {len(grid)}: the places of patches are not known for this model"
        )
    places = np.full((len(ids), 2), _NOWHERE, dtype=np.int64)
    places[is_patch] = grid
    return places[inputs.scored(features)]


def _image_token(model: Any) -> int:
    """The id of the token that stands for a patch. ``processor.image_token_id`` is another one in some families."""
    processor = model.processor
    token = getattr(processor, "image_token", None)
    if token is None:
        raise EncoderError(
            f"{type(processor).__name__} names no image token, so the places of patches are not known for this model"
        )
    return int(processor.tokenizer.convert_tokens_to_ids(str(token)))


def _grid(model: Any, blank: Any, n_patches: int) -> IntArray:
    """Row and column of each patch, in the order of the tokens."""
    images = model.processor.image_processor
    if getattr(images, "do_image_splitting", None) is not None:
        info = images(images=[[blank]], return_row_col_info=True, return_tensors="pt")
        return _tiles(int(info["rows"][0][0]), int(info["cols"][0][0]), n_patches)
    if getattr(images, "merge_size", None) is not None:
        _, rows, columns = images(images=[blank], return_tensors="pt")["image_grid_thw"][0].tolist()
        return _row_major(rows // images.merge_size, columns // images.merge_size)
    side = math.isqrt(n_patches)
    if side * side != n_patches:
        raise EncoderError(
            f"the grid of {type(model.processor).__name__} is not known: it has {n_patches} patches, which make no "
            "square, and neither tiles nor image_grid_thw"
        )
    return _row_major(side, side)


def _row_major(rows: int, columns: int) -> IntArray:
    return np.stack(np.divmod(np.arange(rows * columns), columns), axis=1).astype(np.int64)


def _tiles(rows: int, columns: int, n_patches: int) -> IntArray:
    """The grid of ``rows`` x ``columns`` tiles, one after the other, and of the view of the whole image after them."""
    n_tiles = rows * columns + 1
    side = math.isqrt(n_patches // n_tiles)
    if side * side * n_tiles != n_patches:
        raise EncoderError(f"{n_patches} patches in {n_tiles} tiles make no squares: the grid is not known")
    inner = _row_major(side, side)
    if rows == 0 or columns == 0:
        return inner
    tiles = [inner + tile * side for tile in _row_major(rows, columns)]
    n_tiles_each_way = np.array([rows, columns])
    view = inner * n_tiles_each_way + n_tiles_each_way // 2
    return np.concatenate([*tiles, view]).astype(np.int64)

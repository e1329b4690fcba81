"""Arrays, token embeddings and images as JSON: their bytes in base64, with what the bytes alone do not say."""

from __future__ import annotations

import base64
import binascii
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from muvera_core.errors import InvalidInputError
from muvera_core.images import require_pillow
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings
from muvera_core.validation import shown

if TYPE_CHECKING:
    from PIL.Image import Image

_MAX_AXES = 3


def array_to_json(array: npt.NDArray[Any]) -> dict[str, Any]:
    """An array of numbers, as little-endian float32 or int64, C order."""
    kind = "<i8" if array.dtype.kind in "iu" else "<f4"
    return {"shape": list(array.shape), "data": bytes_to_json(np.ascontiguousarray(array, dtype=kind).tobytes())}


def floats_from_json(name: str, content: object) -> FloatArray:
    """A float32 array from what ``array_to_json`` made, or from lists of numbers.

    Raises:
        InvalidInputError: it is neither.
    """
    if isinstance(content, list):
        return _from_lists(name, content)
    return _from_bytes(name, content, "<f4").astype(np.float32, copy=False)


def integers_from_json(name: str, content: object) -> IntArray:
    """An int64 array from what ``array_to_json`` made. Raises InvalidInputError if it is something else."""
    return _from_bytes(name, content, "<i8").astype(np.int64, copy=False)


def embeddings_to_json(embeddings: TokenEmbeddings) -> dict[str, Any]:
    """Token embeddings."""
    return {"vectors": array_to_json(embeddings.vectors), "offsets": embeddings.offsets.tolist()}


def embeddings_from_json(name: str, content: object) -> TokenEmbeddings:
    """Token embeddings from what ``embeddings_to_json`` made, or from a list with an array of each text.

    Raises:
        InvalidInputError: it is neither, or the vectors cannot be used.
    """
    if isinstance(content, list):
        return TokenEmbeddings.from_list([floats_from_json(f"{name}[{i}]", each) for i, each in enumerate(content)])
    if not isinstance(content, dict) or content.keys() != {"vectors", "offsets"}:
        raise InvalidInputError(
            f'{name} must be a list of arrays, or an object with "vectors" and "offsets", got {shown(content)}'
        )
    offsets = content["offsets"]
    if not isinstance(offsets, list) or not all(type(each) is int and 0 <= each < 1 << 62 for each in offsets):
        raise InvalidInputError(f"{name}.offsets must be a list of whole numbers, got {shown(offsets)}")
    return TokenEmbeddings(floats_from_json(f"{name}.vectors", content["vectors"]), np.array(offsets, dtype=np.int64))


def bytes_to_json(content: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(content).decode("ascii")


def bytes_from_json(name: str, content: object) -> bytes:
    """Bytes from base64. Raises InvalidInputError if it is something else."""
    try:
        return base64.b64decode(content.encode("ascii") if isinstance(content, str) else b"?", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidInputError(f"{name} must be bytes in base64, got {shown(content)}") from None


def image_to_json(image: Image) -> str:
    """An image as a PNG file, in base64."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return bytes_to_json(file.getvalue())


def image_from_json(content: object) -> Image:
    """The image from what ``image_to_json`` made. Raises InvalidInputError or OSError if it is something else."""
    image: Image = require_pillow().open(io.BytesIO(bytes_from_json("the image", content)))
    image.load()
    return image


def _from_lists(name: str, content: list[Any]) -> FloatArray:
    rows = [content] if not any(isinstance(row, list) for row in content) else content
    numbers = (number for row in rows if isinstance(row, list) for number in row)
    if not all(isinstance(row, list) for row in rows) or not all(type(number) in (int, float) for number in numbers):
        raise InvalidInputError(f"{name} must hold numbers, in lists of equal length, got {shown(content)}")
    if len({len(row) for row in rows}) > 1:
        raise InvalidInputError(f"{name} must hold lists of equal length, got {sorted({len(row) for row in rows})}")
    try:
        with np.errstate(over="ignore"):
            return np.array(content, dtype=np.float64).astype(np.float32)
    except OverflowError:
        raise InvalidInputError(f"{name} has a number that is too large: scale the vectors to unit length") from None


def _from_bytes(name: str, content: object, kind: str) -> npt.NDArray[Any]:
    if not isinstance(content, dict) or content.keys() != {"shape", "data"}:
        raise InvalidInputError(
            f'{name} must be lists of numbers, or an object with "shape" and "data", got {shown(content)}'
        )
    shape = content["shape"]
    is_shape = isinstance(shape, list) and 1 <= len(shape) <= _MAX_AXES
    if not is_shape or not all(type(each) is int and 0 <= each < 1 << 40 for each in shape):
        raise InvalidInputError(f"{name}.shape must be a list of 1 to {_MAX_AXES} whole numbers, got {shown(shape)}")
    data = bytes_from_json(f"{name}.data", content["data"])
    expected = math.prod(shape) * np.dtype(kind).itemsize
    if len(data) != expected:
        raise InvalidInputError(
            f"{name}.data must have {expected} bytes for the shape {tuple(shape)}, got {len(data)}: "
            "send little-endian float32, row by row"
        )
    # A copy, because an array over bytes cannot be written to.
    return np.frombuffer(data, dtype=kind).reshape(shape).copy()

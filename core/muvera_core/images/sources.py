"""Reads images: from files, from the bytes of a file, and from Pillow's objects.

An image is read twice: its header and its digest before anything is encoded, and its pixels when they are encoded. So
the pixels of many pages are never in memory together.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.images.pillow import require_pillow
from muvera_core.images.record import ImageRecord
from muvera_core.validation import require_iterable, require_path

if TYPE_CHECKING:
    from PIL.Image import Image

# What users can give as an image.
ImageInput: TypeAlias = Union[str, os.PathLike[str], bytes, "Image"]

_DIGEST_BYTES = 16
_ORIENTATION = 0x0112  # the tag of Exif
# How to turn an image upright, by the value of the tag.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_TURNED_BY_90 = (5, 6, 7, 8)
_PNG_EXIF = ("exif", "Raw profile type exif")


class UnreadableImageError(InvalidInputError):
    """An image cannot be read. The message is the reason, such as "there is no such file"."""


@dataclass(frozen=True, eq=False)
class ImageSource:
    """An image whose header was read, and whose pixels can be read.

    Attributes:
        record: what an index notes about it.
        n_left_out: number of further pages of the file, which are not read.
    """

    record: ImageRecord
    n_left_out: int
    _content: Path | bytes | Image

    @classmethod
    def of(cls, image: ImageInput) -> ImageSource:
        """Read the header of an image.

        Raises:
            UnreadableImageError: it cannot be read.
            InvalidInputError: it is neither a path, nor bytes, nor an image of Pillow.
        """
        content = _content_of("image", image)
        if not isinstance(content, Path | bytes):
            pixels = _upright_rgb(content)
            _require_pixels(*pixels.size)
            return cls(ImageRecord(_file_of(content), *pixels.size, _pixel_digest(pixels)), 0, content)
        path = str(content) if isinstance(content, Path) else None
        data = _data_of(content)
        with _opened(data) as opened:
            width, height = _upright_size(opened)
            _require_pixels(width, height)
            n_frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
        return cls(ImageRecord(path, width, height, _file_digest(data)), n_frames - 1, content)

    def load(self) -> Image:
        """The image, upright, in mode RGB. What is transparent is white.

        Raises:
            UnreadableImageError: it cannot be read, or its file was changed.
        """
        return _checked(self._content, self.record.digest)


def require_images(images: Iterable[ImageInput]) -> list[ImageInput]:
    """The images as a list.

    Raises:
        InvalidInputError: one is neither a path, nor bytes, nor an image of Pillow, or a path is no path.
        MissingExtraError: Pillow is not installed.
    """
    require_pillow()
    listed = require_iterable("images", images)
    for i, image in enumerate(listed):
        _content_of(f"images[{i}]", image)
    return listed


def read_again(record: ImageRecord) -> Image:
    """The image of a document, as it was when it was added.

    Raises:
        UnreadableImageError: it cannot be read, or it is not the same any more.
        MissingExtraError: Pillow is not installed.
    """
    if record.path is None:
        raise UnreadableImageError("it was not added from a file")
    return _checked(Path(record.path), record.digest)


def read_any(image: ImageInput) -> Image:
    """An image, upright, in mode RGB. Raises like ``ImageSource.of``."""
    content = _content_of("image", image)
    if not isinstance(content, Path | bytes):
        return _upright_rgb(content)
    with _opened(_data_of(content)) as opened:
        return _upright_rgb(opened)


def _content_of(name: str, image: object) -> Path | bytes | Image:
    """The path, the bytes, or Pillow's object.

    The file of an image that ``PIL.Image.open`` has opened and that is not read yet stands for the image. Its object
    would keep the pixels.
    """
    pillow = require_pillow()
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return require_path(name, image)
    if not isinstance(image, pillow.Image):
        raise InvalidInputError(
            f"{name} must be a path, the bytes of an image file, or a PIL.Image.Image, got {type(image).__name__}"
        )
    path = getattr(image, "filename", "")
    is_unread = bool(getattr(image, "tile", None)) and getattr(image, "tell", lambda: 0)() == 0
    return require_path(name, path) if path and is_unread else image


def _file_of(image: Image) -> str | None:
    """The file that Pillow has read an image from, if it is known."""
    path = getattr(image, "filename", "")
    return str(require_path("image", path)) if path else None


def _data_of(content: Path | bytes) -> bytes:
    if isinstance(content, bytes):
        return content
    try:
        if not content.exists():
            raise UnreadableImageError("there is no such file")
        if not content.is_file():
            raise UnreadableImageError("it is not a file")
        return content.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"it cannot be read ({error.strerror or error})") from error


@contextmanager
def _opened(data: bytes) -> Iterator[Image]:
    """An image whose header is read. What Pillow raises in the block becomes an UnreadableImageError."""
    pillow = require_pillow()
    with _readable():
        try:
            opened = pillow.open(io.BytesIO(data))
        except pillow.UnidentifiedImageError:
            is_pdf = data.startswith(b"%PDF")
            reason = "it is a PDF: convert its pages to images first" if is_pdf else "it is not an image"
            raise UnreadableImageError(reason) from None
        with opened:
            yield opened


@contextmanager
def _readable() -> Iterator[None]:
    """What Pillow raises in the block becomes an UnreadableImageError."""
    pillow = require_pillow()
    try:
        yield
    except (MemoryError, UnreadableImageError):
        raise
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"it has too many pixels ({error})") from None
    except Exception as error:  # the code for a damaged file of some format can raise anything
        raise UnreadableImageError(f"it is damaged ({str(error) or type(error).__name__})") from error


def _checked(content: Path | bytes | Image, digest: str) -> Image:
    if not isinstance(content, Path | bytes):
        return _upright_rgb(content)
    data = _data_of(content)
    is_of_file = digest.startswith(_FILE)
    changed = UnreadableImageError("it was changed")
    if is_of_file and _file_digest(data) != digest:
        raise changed
    with _opened(data) as opened:
        pixels = _upright_rgb(opened)
    if not is_of_file and _pixel_digest(pixels) != digest:
        raise changed
    return pixels


_FILE, _PIXELS = "file-", "pixels-"


def _file_digest(data: bytes) -> str:
    return _FILE + hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def _pixel_digest(pixels: Image) -> str:
    value = hashlib.blake2b(repr(pixels.size).encode(), digest_size=_DIGEST_BYTES)
    value.update(pixels.tobytes())
    return _PIXELS + value.hexdigest()


def _require_pixels(width: int, height: int) -> None:
    if not (width and height):
        raise UnreadableImageError(f"it has no pixels: its size is {width} x {height}")


def _orientation(image: Image) -> int:
    """The value of Exif's tag, if it stands before the pixels. Pillow reads a whole PNG to look behind them.

    1 also for TIFF, because Pillow turns such an image when it reads its pixels.
    """
    is_plain_png = image.format == "PNG" and not any(name in image.info for name in _PNG_EXIF)
    return 1 if is_plain_png or image.format == "TIFF" else int(image.getexif().get(_ORIENTATION, 1))


def _upright_size(image: Image) -> tuple[int, int]:
    """Width and height of an image that is not read yet, but will be turned upright."""
    if image.format == "TIFF" and image.getexif().get(_ORIENTATION) in _TURNED_BY_90:
        image.load()  # in earlier versions of Pillow, the size is that of the image as it lies
    width, height = image.size
    return (height, width) if _orientation(image) in _TURNED_BY_90 else (width, height)


def _upright_rgb(image: Image) -> Image:
    pillow = require_pillow()
    with _readable():
        turn = _TURNS.get(_orientation(image))
        upright: Image = _as_rgb(image)
        if turn is not None:
            upright = upright.transpose(pillow.Transpose[turn])
        # Without what the file said: whoever reads its orientation would turn the image again.
        plain: Image = pillow.new("RGB", upright.size)
        plain.paste(upright)
        return plain


def _as_rgb(image: Image) -> Image:
    pillow: Any = require_pillow()
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float64)
        if image.mode != "I" or values.max(initial=0) > 255:  # 16 bits; Pillow would clip them to 8
            values /= 257
        image = pillow.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        white = pillow.new("RGBA", with_alpha.size, "white")
        image = pillow.alpha_composite(white, with_alpha)
    return image.convert("RGB")

"""An image encoder without a model: a patch's vector is its colour, and so is the vector of a colour's name.

So "red" finds the page with red on it, and the patch that it matches is the red one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from muvera_core import TokenEmbeddings

if TYPE_CHECKING:
    from PIL.Image import Image

PATCH = 16
COLORS = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
}
_NAMES = "|".join(COLORS)


def color_vectors(colors: np.ndarray) -> np.ndarray:
    """Unit vectors for colours, shape (colours, 4): red, green and blue around grey, and a constant."""
    centred = np.asarray(colors, dtype=np.float32) / 127.5 - 1
    vectors = np.concatenate([centred, np.full((len(centred), 1), 0.25, dtype=np.float32)], axis=1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


class PatchEncoder:
    """Squares of 16 pixels, row by row; the last row and column may be smaller. A marker comes first.

    Attributes:
        n_images: number of images encoded so far.
        sizes: number of images in each call.
    """

    dimension = 4
    fingerprint = "patches-4"

    def __init__(self) -> None:
        self.n_images = 0
        self.sizes: list[int] = []

    def encode_images(self, images: Sequence[Image]) -> TokenEmbeddings:
        self.n_images += len(images)
        self.sizes.append(len(images))
        return TokenEmbeddings.from_list([self._encode_image(image) for image in images], self.dimension)

    def image_patches(self, width: int, height: int) -> np.ndarray:
        rows, columns = -(-height // PATCH), -(-width // PATCH)
        grid = np.indices((rows, columns)).reshape(2, -1).T
        return np.concatenate([[[-1, -1]], grid]).astype(np.int64)

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        return TokenEmbeddings.from_list([self._encode_text(text) for text in texts], self.dimension)

    encode_queries = encode_documents

    def document_spans(self, text: str) -> np.ndarray:
        spans = [match.span() for match in re.finditer(_NAMES, text)]
        return np.array([(0, 0), *spans], dtype=np.int64)

    query_spans = document_spans

    def _encode_text(self, text: str) -> np.ndarray:
        colors = [COLORS[text[start:end]] for start, end in self.document_spans(text)[1:]]
        return color_vectors(np.array([(128, 128, 128), *colors]))

    def _encode_image(self, image: Image) -> np.ndarray:
        assert image.mode == "RGB"
        pixels = np.asarray(image, dtype=np.float32)
        height, width = pixels.shape[:2]
        colors = [
            pixels[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH].mean(axis=(0, 1))
            for row, column in self.image_patches(width, height)[1:]
        ]
        return color_vectors(np.array([(128, 128, 128), *colors]))

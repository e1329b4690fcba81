"""The levels that codes stand for: for each sliced precision, magnitudes that a rotated coordinate is rounded to.

A coordinate is measured in steps of at most 1/127 of its token's range, so a magnitude is a number from 0 to 127 and
every level fits in int8. The leading bits of a code say on which side of ``LARGE`` the magnitude is, the remaining bits
which level on that side it is. Levels are part of the format of an index: they must never change.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

# The range of a token, in standard deviations of its coordinates. With 8 bits a token has a wider range if its largest
# coordinate is beyond it, so that it is not cut off. A smaller range makes the leading bits of such tokens worse, a
# larger one the last bits of all tokens: measured from 2.6 to 3.5.
RANGE = 2.9
MAX_MAGNITUDE = 127
# The magnitude from which on a coordinate is large: .98 standard deviations, the threshold of the best four levels for
# a normal distribution (Lloyd and Max).
LARGE = 43
# The mean magnitudes of small and of large coordinates: .452 and 1.509 standard deviations.
_LEADING = ((20,), (66,))
# The best four levels within each half, for a normal distribution.
_FOUR_BITS = ((5, 15, 26, 37), (50, 67, 87, 117))
# All magnitudes up to 84, and every other one beyond, where few coordinates are.
_EIGHT_BITS = (tuple(range(LARGE)), (*range(LARGE, 86), *range(87, 128, 2)))
_HALVES = {"2bit": _LEADING, "4bit": _FOUR_BITS, "8bit": _EIGHT_BITS}
REMAINING_BITS = {"2bit": 0, "4bit": 2, "8bit": 6}
# Precisions that are too coarse for cut-off coordinates to matter.
FIXED_RANGE = ("2bit", "4bit")


@dataclass(frozen=True, eq=False)
class Levels:
    """The table of a precision. A code has 2 leading bits (1: the magnitude is large, 2: negative) and then others.

    Attributes:
        code_of: the code of each magnitude from 0 to 127, uint8, shape (128,).
        level_of: the level of each code, int8, shape (256,); 0 for codes that do not occur.
    """

    code_of: npt.NDArray[np.uint8]
    level_of: npt.NDArray[np.int8]


@cache
def levels(precision: str) -> Levels:
    """The table of a sliced precision."""
    magnitudes = np.arange(MAX_MAGNITUDE + 1)
    code_of = np.empty(len(magnitudes), dtype=np.uint8)
    level_of = np.zeros(256, dtype=np.int8)
    for is_large, half in enumerate(_HALVES[precision]):
        codes = 4 * np.arange(len(half)) + is_large
        level_of[codes], level_of[codes + 2] = half, np.negative(half)
        members = (magnitudes >= LARGE) == is_large
        nearest = np.abs(magnitudes[members, None] - np.array(half)).argmin(axis=1)
        code_of[members] = codes[nearest]
    return Levels(code_of, level_of)

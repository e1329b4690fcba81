"""Fits an index's tokens into a number of bytes each, by storing them in a coarser precision."""

from __future__ import annotations

from muvera_core.errors import InvalidInputError
from muvera_core.storage import TokenCodec, TokenPrecision
from muvera_core.validation import require_count

# Precisions that tokens can be rewritten in, the best first. The others take more bytes and find no more.
_NARROWED: tuple[TokenPrecision, ...] = ("8bit", "4bit", "2bit")


def precision_for(codec: TokenCodec, max_bytes: int) -> TokenPrecision:
    """The precision to store tokens in: the present one if it fits, or else the best one that does.

    Tokens are never rewritten in a precision that takes more bytes: what was rounded away does not come back.

    Args:
        codec: the present format of the tokens.
        max_bytes: most bytes that a token may take.

    Raises:
        InvalidInputError: no precision fits.
    """
    max_bytes = require_count("max_bytes_per_token", max_bytes)
    if bytes_per_token(codec) <= max_bytes:
        return codec.precision
    sizes = {each: bytes_per_token(TokenCodec(each, codec.dimension)) for each in _NARROWED}
    for precision in _NARROWED:
        if sizes[precision] <= max_bytes:
            return precision
    listed = ", ".join(f"{size} for {precision!r}" for precision, size in sizes.items())
    raise InvalidInputError(
        f"max_bytes_per_token must be at least {sizes[_NARROWED[-1]]} for token vectors of {codec.dimension} numbers "
        f"({listed}), got {max_bytes}: give more bytes, or make an index with a larger pool_factor"
    )


def bytes_per_token(codec: TokenCodec) -> int:
    """Bytes that a token takes on disk."""
    return codec.row_dtype.itemsize

"""Splits a text into passages: at headings and blank lines, at sentences, and if nothing else helps, between words."""

from __future__ import annotations

from functools import cache

from muvera_core.corpus.blocks import MARKUPS, Markup, find_blocks
from muvera_core.corpus.packing import Packer
from muvera_core.corpus.text_passage import TextPassage, passage_of, shared_headings, with_headings
from muvera_core.corpus.token_places import TokenPlaces
from muvera_core.encoders import TokenEncoder, default_encoder, require_encoder
from muvera_core.errors import InvalidInputError
from muvera_core.validation import has_visible_text, require_choice, require_count, require_unicode

DEFAULT_MAX_TOKENS = 256
DEFAULT_OVERLAP = 0


def split_text(
    text: str,
    *,
    max_tokens: int | None = DEFAULT_MAX_TOKENS,
    overlap: int = DEFAULT_OVERLAP,
    encoder: TokenEncoder | None = None,
    markup: Markup = "plain",
) -> list[TextPassage]:
    r"""Split a text into passages for an index.

    A passage is filled with whole paragraphs. One that is too long is cut between sentences, a sentence between words,
    and a word between tokens. Code and tables are cut between lines. A heading stays with what follows it.

    Args:
        text: the text.
        max_tokens: most tokens of a passage, without the encoder's markers. None makes one passage of the text.
        overlap: most tokens that a passage repeats of the one before it, in whole sentences.
        encoder: counts the tokens. None takes the bundled encoder.
        markup: what the text is written in: "plain"; "markdown" or "rst", which have headings, tables and code; or
            "code", which has lines.

    Returns:
        The passages in order. A text without visible characters has none.

    Raises:
        InvalidInputError: an argument cannot be used.

    Example:
        >>> text = "# Owls\n\nThey hunt at night.\n\nThey hear well."
        >>> for passage in split_text(text, max_tokens=8, markup="markdown"):
        ...     print(repr(passage.text), passage.heading)
        '# Owls\n\nThey hunt at night.' Owls
        'They hear well.' Owls
    """
    require_unicode("text", text)
    require_choice("markup", markup, MARKUPS)
    if max_tokens is None:
        return _whole(text, markup)
    require_count("max_tokens", max_tokens)
    overlap = require_overlap(overlap, max_tokens)
    encoder = _default_counter() if encoder is None else require_encoder(encoder)
    places = TokenPlaces.of(text, encoder)
    if places.count(0, len(text)) <= max_tokens:
        return _whole(text, markup)
    return Packer(text, places, max_tokens, overlap, markup).pack(find_blocks(text, markup))


@cache
def _default_counter() -> TokenEncoder:
    """The bundled encoder. It is loaded once."""
    return default_encoder()


def require_overlap(overlap: object, max_tokens: int) -> int:
    """A number of tokens from 0 to half of ``max_tokens``. Raises InvalidInputError otherwise."""
    n = require_count("overlap", overlap, minimum=0)
    if n > max_tokens // 2:
        raise InvalidInputError(
            f"overlap must be at most half of max_tokens, {max_tokens // 2}, got {n}: passages would hardly differ"
        )
    return n


def _whole(text: str, markup: Markup) -> list[TextPassage]:
    """The text as one passage; none if nothing in it is visible."""
    if not has_visible_text(text):
        return []
    blocks = find_blocks(text, markup)
    headings = [headings for block, headings in with_headings(blocks) if block.kind != "heading"]
    return [passage_of(text, 0, len(text), shared_headings(headings or [()]), markup)]

"""The HTML of the passages that an answer was made from, and of why each was found."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Sequence
from html import escape

from muvera_chat.answering import Source
from muvera_chat.shading import marks_of, passage_html, question_html, words_of
from muvera_core import IndexCalls, MuveraError
from muvera_core.validation import counted

_LOG = logging.getLogger(__name__)
# Longest side of a page's image in the browser, in pixels.
_LONGEST_SIDE = 1000


def cards_html(
    index: IndexCalls, query: str, sources: Sequence[Source], cited: Sequence[int], anchors: Sequence[str]
) -> str:
    """A card for each source. If some are cited, the others are folded up.

    Args:
        index: gives the images of pages.
        query: what was searched for.
        sources: the passages.
        cited: the numbers of the sources that are cited.
        anchors: the id of each source's card.
    """
    cards = {source.number: _card(index, query, source, anchors[source.number - 1]) for source in sources}
    shown = "".join(card for number, card in cards.items() if number in cited)
    others = [card for number, card in cards.items() if number not in cited]
    if not shown or not others:
        return shown + "".join(others)
    more = f"{counted(len(others), 'more passage')} that came near"
    return f'{shown}<details class="mv-more"><summary>{more}</summary>{"".join(others)}</details>'


def _card(index: IndexCalls, query: str, source: Source, anchor: str) -> str:
    details = " · ".join(part for part in (source.page and f"page {source.page}", source.heading) if part)
    return (
        f'<details class="mv-card" id="{anchor}"><summary><span class="mv-number">{source.number}</span>'
        f'<span class="mv-path">{escape(source.path)}</span><span class="mv-place">{escape(details)}</span>'
        f'<span class="mv-score" title="relevance">{source.relevance:.2f}</span></summary>'
        f'<div class="mv-why">{_why(index, query, source)}</div></details>'
    )


def _why(index: IndexCalls, query: str, source: Source) -> str:
    words = words_of(query, source.matches)
    marks = marks_of(query, source.matches, source.text, source.start)
    asked = f'<div class="mv-words" aria-label="words of the question">{question_html(words)}</div>'
    image = _image_html(index, query, source) if source.is_image else ""
    passage = f'<p class="mv-passage" dir="auto">{passage_html(source.text, marks, words)}</p>' if source.text else ""
    return (asked if marks else "") + image + passage


def _image_html(index: IndexCalls, query: str, source: Source) -> str:
    """The page under its heat map, as a part of the HTML: no folder has to be served for it."""
    try:
        page = index.heat_map(query, source.id)
    except MuveraError as error:
        _LOG.warning("no heat map of %s: %s", source.id, error)
        return f'<p class="mv-note">The page cannot be shown: {escape(str(error))}</p>'
    page.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    written = io.BytesIO()
    page.save(written, "JPEG", quality=80)
    data = base64.b64encode(written.getvalue()).decode()
    return f'<img class="mv-page" alt="{escape(source.place)}" src="data:image/jpeg;base64,{data}">'

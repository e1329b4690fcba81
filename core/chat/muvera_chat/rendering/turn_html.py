"""The HTML of a turn of the conversation."""

from __future__ import annotations

from html import escape

from muvera_chat.answering import Turn
from muvera_chat.rendering.answer_html import answer_html, quotes_html
from muvera_chat.rendering.source_cards import cards_html
from muvera_core import IndexCalls

NOT_FOUND = "This does not seem to be answered in these documents."


def turn_html(turn: Turn, index: IndexCalls, key: str) -> str:
    """A question and its answer, as far as it is known, with the sources once it is complete.

    Args:
        turn: the turn.
        index: gives the images of pages.
        key: letters and digits that no other turn on the page has.
    """
    anchors = [f"mv-{key}-{source.number}" for source in turn.sources]
    return (
        f'<article class="mv-turn"><div class="mv-question" dir="auto">{escape(turn.question)}</div>'
        f'<div class="mv-answer mv-{turn.status}" dir="auto">{_body(turn, anchors)}</div>'
        f"{_footer(turn, index, anchors) if turn.is_complete else ''}</article>"
    )


def _body(turn: Turn, anchors: list[str]) -> str:
    if turn.status == "searching":
        return '<p class="mv-wait">Searching …</p>'
    if turn.status == "writing" and not turn.text:
        return '<p class="mv-wait">Writing …</p>'
    if turn.status == "not_found":
        return f"<p>{NOT_FOUND}</p>"
    body = quotes_html(turn.quotes, anchors) if turn.quotes else answer_html(turn.text, anchors)
    if turn.quotes:
        body = f'<p class="mv-note">Quoted from the documents; no language model is used.</p>{body}'
    return body + (f'<p class="mv-problem" role="alert">{escape(turn.problem)}</p>' if turn.problem else "")


def _footer(turn: Turn, index: IndexCalls, anchors: list[str]) -> str:
    searched = ""
    if turn.query not in ("", turn.question):
        searched = f'<p class="mv-note">Searched for: {escape(turn.query)}</p>'
    if not turn.sources:
        return searched
    title = "Sources" if turn.cited else "Nearest passages"
    cards = cards_html(index, turn.query, turn.sources, turn.cited, anchors)
    return f'{searched}<section class="mv-sources"><h4>{title}</h4>{cards}</section>'

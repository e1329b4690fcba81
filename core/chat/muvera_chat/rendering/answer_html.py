"""The HTML of an answer.

A model's Markdown is rendered without HTML, without images, which could send what the model knows to another host, and
with links to the web only. Citations become links to the cards of their sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from markdown_it import MarkdownIt
from markdown_it.token import Token

from muvera_chat.answering import CITATION, Quote, numbers_in

_LINKS = ("http://", "https://", "mailto:")


def answer_html(text: str, anchors: Sequence[str]) -> str:
    """The HTML of a model's answer.

    Args:
        text: the answer, in Markdown.
        anchors: the id of each source's card, in the order of their numbers.
    """
    tokens = _MARKDOWN.parse(text)
    for token in tokens:
        if token.children is not None:
            token.children = [part for child in token.children for part in _with_citations(child, anchors)]
    return str(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))


def quotes_html(quotes: Sequence[Quote], anchors: Sequence[str]) -> str:
    """The HTML of an answer that consists of quotations."""
    return "".join(
        f"<blockquote>{escape(quote.text)} {citation_html([quote.number], anchors)}</blockquote>" for quote in quotes
    )


def citation_html(numbers: Sequence[int], anchors: Sequence[str]) -> str:
    """Links to the cards of sources, such as [1]."""
    return "".join(
        f'<a class="mv-cite" href="#{anchors[number - 1]}" aria-label="source {number}">{number}</a>'
        for number in numbers
    )


def _with_citations(token: Token, anchors: Sequence[str]) -> list[Token]:
    if token.type != "text":
        return [token]
    parts: list[Token] = []
    end = 0
    for match in CITATION.finditer(token.content):
        numbers = numbers_in(match[0], len(anchors))
        if numbers:
            parts += [_text(token.content[end : match.start()]), _html(citation_html(numbers, anchors))]
            end = match.end()
    return [*parts, _text(token.content[end:])]


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)


def _html(content: str) -> Token:
    """A token whose content, which must be safe, is written as it is."""
    return Token("html_inline", "", 0, content=content)


def _open_link(renderer: object, tokens: Sequence[Token], i: int, options: object, env: object) -> str:
    """A link leads to a new tab, which does not learn where it was opened."""
    href = str(tokens[i].attrs.get("href", ""))
    if not href.lower().startswith(_LINKS):
        return "<a>"
    return f'<a href="{escape(href)}" title="{escape(href)}" target="_blank" rel="noopener noreferrer nofollow">'


def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table").disable("image")
    markdown.add_render_rule("link_open", _open_link)
    return markdown


_MARKDOWN = _markdown()

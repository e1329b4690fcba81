"""Reads HTML as Markdown: headings, lists, tables and code stay; scripts, navigation and the like go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from muvera_core.corpus.files import SourceFile
from muvera_core.corpus.readers.contract import Extracted, ExtractedText
from muvera_core.corpus.readers.decoding import read_bytes
from muvera_core.corpus.readers.markdown_of_html import parse_html, text_of
from muvera_core.corpus.reading import Reading

MAX_BYTES = 1 << 25
_INVISIBLE = ("script", "style", "noscript", "template", "svg", "iframe", "head", "object", "canvas", "button", "input")
_AROUND = ("nav", "footer", "aside", "form", "dialog")
_ROLES = ("navigation", "banner", "contentinfo", "search", "complementary", "dialog", "menu", "alert")
# A list, or another part of a page without <main>, is navigation if it is little but links.
_LINKS = 0.8
_MIN_LINKS = 4


def read(file: SourceFile, reading: Reading) -> Iterator[Extracted]:
    """The main content of a page."""
    content = read_bytes(file, MAX_BYTES)
    if not content.strip():
        return
    page = parse_html(content, reading.encoding)
    title = page.title.get_text(" ", strip=True) if page.title else ""
    yield ExtractedText(*text_of(page, main_content), metadata={"title": title} if title else {})


def main_content(page: Any) -> Any:
    """The part of a page that it is about; all of it if nothing says which that is."""
    for tag in page.find_all(_INVISIBLE):
        tag.decompose()
    for tag in page.select("[hidden], [aria-hidden=true], a.headerlink, a.anchor, a.anchorjs-link"):
        tag.decompose()
    mains = page.find_all("main") or page.find_all(attrs={"role": "main"}) or page.find_all("article")
    # Several articles are a list of news, of which none is the content.
    main = mains[0] if len(mains) == 1 else page.body or page
    for tag in main.find_all(_AROUND):
        tag.decompose()
    for tag in main.find_all(attrs={"role": _ROLES}):
        tag.decompose()
    if len(mains) != 1:
        for tag in main.find_all(["ul", "ol", "table", "div"]):
            if not tag.decomposed and _is_navigation(tag):
                tag.decompose()
    return main


def _is_navigation(tag: Any) -> bool:
    links = tag.find_all("a", href=True, limit=1_000)
    if len(links) < _MIN_LINKS or tag.find(["p", "pre", "h1", "h2", "h3"]):
        return False
    n_linked = sum(len(link.get_text(strip=True)) for link in links)
    return n_linked >= _LINKS * len(tag.get_text(strip=True))

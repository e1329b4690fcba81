"""Turns HTML into Markdown. Word documents and e-books pass through HTML, too."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

from muvera_core.corpus.blocks import Markup

# Ordinary pages have some dozens of elements in each other.
_MAX_DEPTH = 150
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*\n")
_SPACES = re.compile(r"[ \t]+$", re.MULTILINE)


def parse_html(content: bytes | str, encoding: str | None = None) -> Any:
    """The tree of a page. Without ``encoding``, the page's own declaration counts, then what the bytes look like."""
    from bs4 import BeautifulSoup

    with warnings.catch_warnings():
        # It warns of pages that begin as XML, as pages of e-books do, and of those that are but a name.
        warnings.simplefilter("ignore", UserWarning)
        return BeautifulSoup(content, "lxml", from_encoding=encoding if isinstance(content, bytes) else None)


def text_of(page: Any, part: Callable[[Any], Any] = lambda page: page) -> tuple[str, Markup]:
    """The text of a page, and what it is written in: Markdown of a part of it, or all words of a page that is too deep.

    Args:
        page: the tree.
        part: chooses the part.
    """
    return (page.get_text("\n", strip=True), "plain") if _is_too_deep(page) else (_as_markdown(part(page)), "markdown")


def _is_too_deep(tree: Any) -> bool:
    """Whether elements are in each other so many times that converting them would take very long, or fail."""
    waiting = [(tree, 0)]
    while waiting:
        element, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            return True
        waiting += [(child, depth + 1) for child in getattr(element, "children", ())]
    return False


def _as_markdown(tree: Any) -> str:
    """A part of a page as Markdown. Links become their text, and pictures what describes them."""
    from markdownify import MarkdownConverter

    converter = MarkdownConverter(
        heading_style="ATX",
        bullets="-",
        strip=["a"],
        table_infer_header=True,
        escape_asterisks=False,
        escape_underscores=False,
        escape_misc=False,
        code_language_callback=_language,
    )
    for image in tree.find_all("img"):
        image.replace_with(image.get("alt") or "")
    text: str = converter.convert_soup(tree)
    return _BLANK_LINES.sub("\n\n", _SPACES.sub("", text)).strip()


def _language(tag: Any) -> str:
    """The language of code, from a class such as "language-python"."""
    classes = [*(tag.get("class") or []), *((tag.code.get("class") or []) if tag.code else [])]
    return next((name.removeprefix("language-") for name in classes if name.startswith("language-")), "")

"""The repository's Markdown pages: their fenced blocks, headings and links, as a renderer sees them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
_PATTERNS = ("*.md", "core/*/README.md", "integrations/*/README.md", "examples/**/*.md", "docs/**/*.md")
# Where the API reference describes an object, which has its full name as anchor.
DIRECTIVE = re.compile(r"^::: ([\w.]+)$", flags=re.MULTILINE)
_ANCHOR = re.compile(r'<a (?:id|name)="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced or indented block of a page.

    Attributes:
        page: path below the repository's root.
        line: line of the opening fence, from 1.
        language: the fence's first word; "" if it has none, "indented" for a block without a fence.
        code: its text.
        follows: whether nothing is between it and the block before it.
        section: the heading of level 2 above it, or "".
    """

    page: str
    line: int
    language: str
    code: str
    section: str
    follows: bool = False

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Link:
    """A link or an image of a page, with its line."""

    page: str
    line: int
    target: str

    @property
    def is_external(self) -> bool:
        return "://" in self.target or self.target.startswith("mailto:")


def pages() -> list[str]:
    """Paths of all pages below the root, sorted."""
    found = {path.relative_to(ROOT).as_posix() for pattern in _PATTERNS for path in ROOT.glob(pattern)}
    return sorted(path for path in found if not any(part.startswith(".") for part in Path(path).parts))


def tokens_of(page: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text(encoding="utf-8"))


def blocks_of(page: str) -> list[Block]:
    """The code blocks of a page, also those in lists, in their order."""
    blocks: list[Block] = []
    section, end = "", -1
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    tokens = tokens_of(page)
    for token, content in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open" and token.tag in ("h1", "h2") and content is not None:
            section = content.content
        if token.type in ("fence", "code_block") and token.map is not None:
            language = (token.info.split() or [""])[0] if token.type == "fence" else "indented"
            follows = bool(blocks) and not "".join(lines[end : token.map[0]]).strip()
            blocks.append(Block(page, token.map[0] + 1, language, token.content, section, follows))
            end = token.map[1]
    return blocks


def links_of(page: str) -> list[Link]:
    """Links and images of a page, without those in code."""
    return [
        Link(page, line, str(child.attrs["src" if child.type == "image" else "href"]))
        for line, children in _inlines(page)
        for child in children
        if child.type in ("link_open", "image")
    ]


def anchors_of(page: str) -> set[str]:
    """The fragments that links to a page may have: those of its headings, as GitHub and the site make them."""
    seen: dict[str, int] = {}
    text = (ROOT / page).read_text(encoding="utf-8")
    anchors = {*_ANCHOR.findall(text), *DIRECTIVE.findall(text)}
    tokens = tokens_of(page)
    for token, content in pairwise(tokens):
        if token.type != "heading_open":
            continue
        slug = slug_of(_plain(content))
        anchors.add(slug if slug not in seen else f"{slug}_{seen[slug]}")
        seen[slug] = seen.get(slug, 0) + 1
    return anchors


def slug_of(heading: str) -> str:
    """A heading's fragment. GitHub and the site agree on it for letters, digits, spaces, ``-`` and ``_``."""
    text = unicodedata.normalize("NFC", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [] if child.type in ("text", "code_inline"))


def _inlines(page: str) -> Iterator[tuple[int, list[Token]]]:
    line = 1
    for token in tokens_of(page):
        line = token.map[0] + 1 if token.map is not None else line
        if token.type == "inline":
            yield line, token.children or []

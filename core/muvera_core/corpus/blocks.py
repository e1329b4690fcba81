"""Finds the blocks of a text: paragraphs, headings, and what should not be cut, such as tables and code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Markup = Literal["plain", "markdown", "rst", "code"]
MARKUPS: tuple[Markup, ...] = ("plain", "markdown", "rst", "code")
# What a block is cut at if it is too long: sentences, or lines.
Kind = Literal["text", "lines", "heading"]

# Longer headings are cut in metadata: what is so long is none.
_MAX_TITLE = 200
_LINE = re.compile(r"[^\n]*(?:\n|$)")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]|$)")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_TABLE = re.compile(r"[ \t]*+\|?[ \t]*+:?-++:?[ \t]*+(?:\|[ \t]*+:?-++:?[ \t]*+)*+\|?[ \t]*+$")
# A line of one sign, at least as long as the title above it.
_RST_RULE = re.compile(r"([=\-`:.'\"~^_*+#<>])\1+$")
# Code and tables of reStructuredText are indented, or start with a line of signs.
_RST_LINES = re.compile(r"[ \t]+\S|\+[-=]{3}|={3,} +=|\|")
# What is no paragraph, so that a line of dashes below it is a rule and not the mark of a heading.
_NO_PARAGRAPH = re.compile(r"[ \t]*(?:[-*+>|]|\d+[.)][ \t])")
_HEADING_MARKUP = re.compile(r"[*`]|\[([^\]]*)\]\([^)]*\)|\s*\{#[^}]*\}$")


@dataclass(frozen=True)
class Block:
    """A part of a text between blank lines, without white space around it.

    Attributes:
        start: its first character.
        end: the character after its last one.
        kind: what it is, which says where it may be cut.
        level: of a heading, from 1; 0 for others.
        title: of a heading.
    """

    start: int
    end: int
    kind: Kind = "text"
    level: int = 0
    title: str = ""


def find_blocks(text: str, markup: Markup) -> list[Block]:
    """The blocks of a text, in order. Time is proportional to the text's length."""
    if markup == "markdown":
        return list(_markdown_blocks(text))
    if markup == "rst":
        return list(_rst_blocks(text))
    return list(_paragraphs(text, "lines" if markup == "code" else "text"))


def _paragraphs(text: str, kind: Kind) -> Iterator[Block]:
    start = end = -1
    for line_start, line in _lines(text):
        if line.strip():
            start = line_start if start < 0 else start
            end = line_start + len(line.rstrip())
        elif start >= 0:
            yield _block(text, start, end, kind)
            start = -1
    if start >= 0:
        yield _block(text, start, end, kind)


def _block(text: str, start: int, end: int, kind: Kind) -> Block:
    # The indent of code's first line belongs to it.
    if kind != "lines":
        start += len(text[start:end]) - len(text[start:end].lstrip())
    return Block(start, end, kind)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Start and content of each line."""
    for match in _LINE.finditer(text):
        if match.end() > match.start():
            yield match.start(), match[0].rstrip("\n")


def _markdown_blocks(text: str) -> Iterator[Block]:
    """Headings, tables, fenced code, and what is between blank lines."""
    start = end = -1  # of the open paragraph
    kind: Kind = "text"
    n_lines = 0
    fence = ""
    for line_start, line in _lines(text):
        line_end = line_start + len(line.rstrip())
        opens = _FENCE.match(line)
        if fence:
            end = max(end, line_end)
            if opens and opens[1].startswith(fence) and not line[opens.end() :].strip():
                yield Block(start, end, "lines")
                fence, start = "", -1
            continue
        heading, underline = _HEADING.match(line), _UNDERLINE.match(line)
        if start >= 0 and (not line.strip() or opens or heading):
            yield _block(text, start, end, kind)
            start = -1
        if opens:
            fence, start, end = opens[1], line_start, line_end
        elif heading:
            yield Block(line_start, line_end, "heading", len(heading[1]), _title(line[heading.end() :]))
        elif start >= 0 and underline and n_lines == 1 and kind == "text" and not _NO_PARAGRAPH.match(text[start:end]):
            title = _title(text[start:end].strip())
            yield Block(start, line_end, "heading", 1 if underline[1].startswith("=") else 2, title)
            start = -1
        elif line.strip():
            if start < 0:
                start, kind, n_lines = line_start, "text", 0
            n_lines, end = n_lines + 1, line_end
            if n_lines == 2 and "|" in line and _TABLE.match(line):
                kind = "lines"
    if start >= 0:
        yield _block(text, start, end, "lines" if fence else kind)


def _rst_blocks(text: str) -> Iterator[Block]:
    """Titles, which have a line of signs below them, and perhaps above them; and what is between blank lines.

    The first kind of title in a text is of level 1, the next new one of level 2, and so on.
    """
    kinds: list[tuple[str, bool]] = []
    for block in _paragraphs(text, "lines"):
        lines = text[block.start : block.end].split("\n")
        over = len(lines) > 2 and _RST_RULE.match(lines[0].rstrip()) is not None
        title, rule = (lines[1], lines[2]) if over else (lines[0], lines[1] if len(lines) > 1 else "")
        sign = _RST_RULE.match(rule.rstrip())
        if sign is None or not title.strip() or len(rule.rstrip()) < len(title.rstrip()) or _RST_RULE.match(title):
            yield _block(text, block.start, block.end, "lines" if _RST_LINES.match(lines[0]) else "text")
            continue
        kind = (sign[1], over)
        if kind not in kinds:
            kinds.append(kind)
        end = block.start + sum(len(line) + 1 for line in lines[: 3 if over else 2]) - 1
        yield Block(block.start, end, "heading", kinds.index(kind) + 1, title.strip()[:_MAX_TITLE])
        if end < block.end:
            yield _block(text, end, block.end, "text")


def _title(text: str) -> str:
    """A heading without its markup."""
    text = " ".join(text[:_MAX_TITLE].split())
    unclosed = text.rstrip("#")
    if not unclosed or unclosed.endswith(" "):
        text = unclosed
    return _HEADING_MARKUP.sub(lambda match: match[1] or "", text).strip()

"""Reads e-books in EPUB format, chapter by chapter."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote
from zipfile import ZipFile

from muvera_core.corpus.files import SourceFile
from muvera_core.corpus.readers.contract import Extracted, ExtractedText
from muvera_core.corpus.readers.html import main_content
from muvera_core.corpus.readers.markdown_of_html import parse_html, text_of
from muvera_core.corpus.readers.packages import opened_package
from muvera_core.corpus.readers.problems import UnreadableFileError
from muvera_core.corpus.reading import Reading

_PAGES = ("application/xhtml+xml", "text/html")


def read(file: SourceFile, reading: Reading) -> Iterator[Extracted]:
    """The chapters in the order in which they are read, as Markdown."""
    with opened_package(file) as package:
        folder, content = _package_document(package)
        pages = _pages(content, folder)
        encrypted = _encrypted(package)
        if pages and encrypted.issuperset(pages):
            raise UnreadableFileError("encrypted", "it is encrypted: its seller's programs alone can read it")
        names = set(package.namelist())
        chapters = [
            text_of(parse_html(package.read(page)), main_content)[0]
            for page in pages
            if page in names and page not in encrypted
        ]
    text = "\n\n".join(chapter for chapter in chapters if chapter)
    title = _first(content, "dc:title")
    if text:
        yield ExtractedText(text, "markdown", metadata={"title": title} if title else {})


def _package_document(package: ZipFile) -> tuple[str, Any]:
    """The folder of the file that lists the book's pages, and its content."""
    try:
        container = _xml(package.read("META-INF/container.xml"))
        path = container.find("rootfile")["full-path"]
        return posixpath.dirname(path), _xml(package.read(path))
    except (KeyError, TypeError):
        raise UnreadableFileError("damaged", "it does not say where its pages are") from None


def _pages(content: Any, folder: str) -> list[str]:
    paths = {
        item.get("id"): posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))
        for item in content.find_all("item")
        if item.get("media-type") in _PAGES and "nav" not in item.get("properties", "").split()
    }
    ids = [item.get("idref") for item in content.find_all("itemref")]
    return [paths[id] for id in ids if id in paths]


def _encrypted(package: ZipFile) -> set[str]:
    """Parts that only the seller's programs can read. Fonts are often among them, also in open books."""
    try:
        listed = _xml(package.read("META-INF/encryption.xml"))
    except KeyError:
        return set()
    return {unquote(reference.get("URI", "")) for reference in listed.find_all("CipherReference")}


def _xml(content: bytes) -> Any:
    from bs4 import BeautifulSoup

    return BeautifulSoup(content, "xml")


def _first(content: Any, name: str) -> str:
    found = content.find(name) or content.find(name.partition(":")[2])
    return found.get_text(" ", strip=True) if found else ""

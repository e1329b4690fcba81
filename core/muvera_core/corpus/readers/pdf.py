"""Reads the text layer of PDF files, with PDFium."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from threading import Lock
from typing import Any

from muvera_core.corpus.files import SourceFile
from muvera_core.corpus.limits import MAX_TEXT_BYTES
from muvera_core.corpus.readers.contract import Extracted, ExtractedText, Mark
from muvera_core.corpus.readers.page_text import join_pages, tidy_pages
from muvera_core.corpus.readers.problems import UnreadableFileError
from muvera_core.corpus.reading import Reading
from muvera_core.validation import has_visible_text, repaired

# PDFium must not be used by two threads.
_ONE_AT_A_TIME = Lock()
# Most entries of an outline that are read. Damaged ones can go round in circles.
_MAX_ENTRIES = 10_000
# Characters that a font without a table of Unicode characters gives.
_NO_TEXT = range(0xE000, 0xF900)


def read(file: SourceFile, reading: Reading) -> Iterator[Extracted]:
    """The text of a file, with marks where pages and the entries of its outline start."""
    with _ONE_AT_A_TIME:
        pages, outline, title = _content(file)
    pages = tidy_pages(pages)
    if not any(has_visible_text(page) for page in pages):
        raise UnreadableFileError(
            "no text layer (a scan)", "it has no text layer, as a scan has none: run OCR over it, or index page images"
        )
    text, starts = join_pages(pages)
    yield ExtractedText(
        text, marks=tuple(_marks(text, starts, outline)), metadata={"title": repaired(title)} if title else {}
    )


def _content(file: SourceFile) -> tuple[list[str], list[tuple[int, int, str]], str]:
    """The text of each page, the outline, and the title."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(file.path)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise UnreadableFileError("encrypted", "it is encrypted: save a copy without a password") from None
        raise UnreadableFileError("damaged", f"it is damaged, or no PDF ({error})") from None
    try:
        title = str(document.get_metadata_dict(skip_empty=True).get("Title", "")).strip()
        return _pages(document), _outline(document), title
    finally:
        document.close()


def _pages(document: Any) -> list[str]:
    """The text of each page. That of a page which cannot be read is empty."""
    from pypdfium2 import PdfiumError

    pages, room = [], MAX_TEXT_BYTES
    for number in range(len(document)):
        try:
            page = document[number]
            content = page.get_textpage()
            text = content.get_text_bounded()
            content.close()
            page.close()
        except PdfiumError:
            text = ""
        n_unreadable = sum(ord(character) in _NO_TEXT or character == "\ufffd" for character in text)
        pages.append("" if n_unreadable * 2 > len(text) else text)
        room -= len(text)
        if room < 0:
            raise UnreadableFileError("too large", f"it has more than {MAX_TEXT_BYTES >> 20} MiB of text: split it")
    return pages


def _outline(document: Any) -> list[tuple[int, int, str]]:
    """Level, page and title of each entry of the outline that leads to a page."""
    entries = []
    for entry in islice(document.get_toc(), _MAX_ENTRIES):
        target = entry.get_dest()
        page = target.get_index() if target else None
        title = " ".join(repaired(entry.get_title()).split())
        if page is not None and title:
            entries.append((entry.level, page, title))
    return entries


def _marks(text: str, starts: Sequence[int], outline: Sequence[tuple[int, int, str]]) -> Iterator[Mark]:
    """A mark where each page starts, and where each heading of the outline is on its page."""
    places: list[tuple[int, int, tuple[str, ...]]] = []
    above: list[tuple[int, str]] = []
    for level, page, title in outline:
        above = [*(higher for higher in above if higher[0] < level), (level, title)]
        if page < len(starts):
            end = starts[page + 1] if page + 1 < len(starts) else len(text)
            place = text.find(title, starts[page], end)
            headings = tuple(heading for _, heading in above)
            places.append((starts[page] if place < 0 else place, page, headings))
    places.sort(key=lambda place: place[0])
    heading: tuple[str, ...] = ()
    waiting = iter([*places, (len(text) + 1, len(starts), ())])
    entry = next(waiting)
    for page, start in enumerate(starts):
        end = starts[page + 1] if page + 1 < len(starts) else len(text) + 1
        if entry[0] > start:
            yield Mark(start, _fields(page, heading))
        while entry[0] < end:
            heading = entry[2]
            yield Mark(entry[0], _fields(page, heading))
            entry = next(waiting)


def _fields(page: int, heading: Sequence[str]) -> dict[str, Any]:
    return {"page": page + 1, **({"heading": " > ".join(heading)} if heading else {})}

"""Reads PowerPoint presentations: a page per slide, with its notes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from muvera_core.corpus.files import SourceFile
from muvera_core.corpus.readers.contract import Extracted, of_parts
from muvera_core.corpus.readers.packages import opened_package
from muvera_core.corpus.readers.tables import markdown_table
from muvera_core.corpus.reading import Reading


def read(file: SourceFile, reading: Reading) -> Iterator[Extracted]:
    """The text of the slides as Markdown, with a heading and a mark for each."""
    from pptx import Presentation

    with opened_package(file):
        presentation = Presentation(str(file.path))
    slides = enumerate(presentation.slides, start=1)
    extracted = of_parts(({"page": number}, "\n\n".join(_blocks(slide))) for number, slide in slides)
    if extracted.text:
        yield extracted


def _blocks(slide: Any) -> Iterator[str]:
    title = slide.shapes.title
    if title is not None and (heading := " ".join(title.text_frame.text.split())):
        yield f"# {heading}"
    shapes = [shape for shape in _flat(slide.shapes) if title is None or shape.shape_id != title.shape_id]
    # Shapes are stored in the order in which they were drawn.
    for shape in sorted(shapes, key=lambda shape: (shape.top or 0, shape.left or 0)):
        if getattr(shape, "has_table", False) and shape.has_table:
            yield markdown_table([[cell.text for cell in row.cells] for row in shape.table.rows])
        elif shape.has_text_frame and (text := _text(shape.text_frame)):
            yield text
    if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None and (text := _text(notes)):
        yield f"Notes: {text}"


def _flat(shapes: Any) -> Iterator[Any]:
    """The shapes, and those in groups."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _flat(shape.shapes)
        else:
            yield shape


def _text(frame: Any) -> str:
    lines = []
    for paragraph in frame.paragraphs:
        text = " ".join(paragraph.text.split())
        if text:
            lines.append(f"{'  ' * paragraph.level}- {text}" if len(frame.paragraphs) > 1 else text)
    return "\n".join(lines)

"""Makes small files of many formats for the tests of readers."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from muvera_core.corpus import Reading, SourceDocument, SourceFile, Unusable, read_documents

WHOLE = Reading(max_tokens=None)


def read_all(path: Path, reading: Reading = WHOLE) -> list[SourceDocument | Unusable]:
    return list(read_documents(SourceFile(path.parent, path), reading, None))


def read_one(path: Path, reading: Reading = WHOLE) -> SourceDocument:
    (entry,) = read_all(path, reading)
    assert isinstance(entry, SourceDocument), entry
    return entry


def text_of(path: Path, reading: Reading = WHOLE) -> str:
    text = read_one(path, reading).text
    assert text is not None
    return text


def problem_of(path: Path, reading: Reading = WHOLE) -> Unusable:
    (entry,) = read_all(path, reading)
    assert isinstance(entry, Unusable), entry
    return entry


def write_pdf(path: Path, pages: Sequence[Sequence[str]]) -> Path:
    """A PDF file with these lines on each page, in Helvetica."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for lines in pages:
        shown = "\n".join(f"({line}) Tj T*" for line in lines)
        content = f"BT /F1 12 Tf 14 TL 50 750 Td {shown} ET" if lines else ""
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {len(objects)} 0 R >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    parts, places = ["%PDF-1.4\n"], []
    for number, content in enumerate(objects, start=1):
        places.append(sum(map(len, parts)))
        parts.append(f"{number} 0 obj\n{content}\nendobj\n")
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    start = sum(map(len, parts))
    parts.append(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}")
    parts.append(f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n")
    path.write_bytes("".join(parts).encode("latin-1"))
    return path


def write_zip(path: Path, parts: Mapping[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in parts.items():
            package.writestr(name, content)
    return path


def write_epub(path: Path, chapters: Mapping[str, str], others: Mapping[str, str] | None = None) -> Path:
    """A book whose chapters are read in the order in which they are given; they are stored in another one."""
    items = "".join(
        f'<item id="i{n}" href="{name.replace(" ", "%20")}" media-type="application/xhtml+xml"/>'
        for n, name in reversed(list(enumerate(chapters)))
    )
    spine = "".join(f'<itemref idref="i{n}"/>' for n in range(len(chapters)))
    package = (
        '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>Owl tales</dc:title></metadata>'
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    container = (
        '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    pages = {f"OEBPS/{name}": content for name, content in reversed(list(chapters.items()))}
    return write_zip(
        path, {"META-INF/container.xml": container, "OEBPS/content.opf": package, **pages, **(others or {})}
    )


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path

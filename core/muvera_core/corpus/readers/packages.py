"""Opens files that are ZIP archives of XML: Word and PowerPoint documents, and e-books."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from zipfile import BadZipFile, ZipFile

from muvera_core.corpus.files import SourceFile
from muvera_core.corpus.readers.problems import UnreadableFileError

# Compressed files can hold far more than their size says. These limits are for what they hold.
MAX_PART_BYTES = 1 << 26
MAX_BYTES = 1 << 29
_MAX_PARTS = 20_000
_TEXT_PARTS = (".xml", ".rels", ".xhtml", ".html", ".htm", ".opf", ".ncx")
# Definitions of entities can grow without bound when they are read; no office program writes any.
_ENTITY = re.compile(rb"<!ENTITY", re.IGNORECASE)
_ENCRYPTED_OFFICE = bytes.fromhex("d0cf11e0a1b11ae1")


@contextmanager
def opened_package(file: SourceFile) -> Iterator[ZipFile]:
    """An archive whose content is not too large and defines no entities.

    Raises:
        UnreadableFileError: it is, or it is encrypted or damaged.
    """
    with file.path.open("rb") as stream:
        if stream.read(len(_ENCRYPTED_OFFICE)) == _ENCRYPTED_OFFICE:
            raise UnreadableFileError("encrypted", "it is encrypted, or of an old format: save it anew")
    try:
        with ZipFile(file.path) as package:
            _check(package)
            yield package
    except BadZipFile as error:
        raise UnreadableFileError("damaged", f"it is damaged ({error})") from None


def _check(package: ZipFile) -> None:
    parts = package.infolist()
    texts = [part for part in parts if part.filename.lower().endswith(_TEXT_PARTS)]
    if (
        len(parts) > _MAX_PARTS
        or sum(part.file_size for part in parts) > MAX_BYTES
        or any(part.file_size > MAX_PART_BYTES for part in texts)
    ):
        limits = f"{MAX_PART_BYTES >> 20} MiB in a part, {MAX_BYTES >> 20} MiB in all"
        raise UnreadableFileError("too large", f"its content is larger than an ordinary document's ({limits})")
    for part in texts:
        if part.flag_bits & 1:
            raise UnreadableFileError("encrypted", "it is encrypted: save a copy without a password")
        # UTF-16 has a zero byte in each pair.
        if _ENTITY.search(package.read(part).replace(b"\0", b"")):
            raise UnreadableFileError("unsafe", f"{part.filename} in it defines XML entities, which is not safe")

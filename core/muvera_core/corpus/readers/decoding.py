"""Turns the bytes of a text file into text, in whatever encoding they are."""

from __future__ import annotations

import codecs
from importlib.util import find_spec

from muvera_core.corpus.files import SourceFile
from muvera_core.corpus.readers.problems import UnreadableFileError
from muvera_core.corpus.reading import Reading

MAX_FILE_BYTES = 1 << 28
# Longest marks first: the one of UTF-16 begins the one of UTF-32.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# How much of a file is looked at to find out its encoding.
_SAMPLE = 1 << 16


def read_bytes(file: SourceFile, most: int = MAX_FILE_BYTES) -> bytes:
    """The content of a file. Raises UnreadableFileError if it is too large."""
    with file.path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise UnreadableFileError("too large", f"it has more than {most >> 20} MiB: split it into several files")
    return content


def read_text(file: SourceFile, reading: Reading) -> str:
    """The text of a file, with line ends of Unix. Raises UnreadableFileError if it is no text."""
    return decoded(read_bytes(file), reading.encoding)


def decoded(content: bytes, encoding: str | None) -> str:
    """Bytes as text, with line ends of Unix.

    Args:
        content: the bytes.
        encoding: their encoding. None finds it out: by a byte order mark, as UTF-8, or by what the text looks like.

    Raises:
        UnreadableFileError: the bytes are no text, or not in that encoding.
    """
    name = encoding or next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(name)
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise UnreadableFileError(
                "wrong encoding",
                f"it is not {encoding} text ({bad_byte(error)}): leave out the encoding, or correct it",
            ) from None
        text = _guessed(content, error)
    if "\0" in text:
        raise UnreadableFileError("binary", "it is not text: it holds zero bytes")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _guessed(content: bytes, error: UnicodeDecodeError) -> str:
    """Text in an encoding that is guessed from the frequency of its letters."""
    if b"\0" in content:
        raise UnreadableFileError("binary", "it is not text: it holds zero bytes") from None
    if find_spec("charset_normalizer") is None:
        raise UnreadableFileError(
            "not UTF-8",
            f"it is not UTF-8 text ({bad_byte(error)}): name its encoding, or let it be found out, which needs "
            "pip install 'muvera-core[documents]'",
        ) from None
    from charset_normalizer import from_bytes

    start = max(0, error.start - _SAMPLE // 2)
    best = from_bytes(content[start : start + _SAMPLE]).best()
    for name in (*([best.encoding] if best else []), "cp1252"):
        try:
            return content.decode(name)
        except UnicodeDecodeError:
            continue
    raise UnreadableFileError("unknown encoding", "its encoding cannot be found out: name it, or convert it to UTF-8")


def bad_byte(error: UnicodeDecodeError) -> str:
    """The byte that a codec refuses, and its place."""
    return f"byte 0x{error.object[error.start]:02x} at {error.start}"

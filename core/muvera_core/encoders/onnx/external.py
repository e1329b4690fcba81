"""Finds the files that an ONNX model keeps its weights in, if they are not in the model's own file.

Old versions of onnxruntime read any file that a model names. A model from somebody else must not make them do that.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from muvera_core.errors import EncoderError

# Which fields of ONNX's messages hold messages that can lead to a tensor, by field number (onnx.proto).
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(file: Path, remedy: str) -> list[str]:
    """The names of the further files of a model, all of them in its folder.

    Raises:
        EncoderError: the file is missing or damaged, or a further file is not in its folder.
    """
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            names = set(_locations(content, 0, len(content), "Model"))
    except (OSError, ValueError, IndexError, RecursionError) as error:
        raise EncoderError(f"{file} is not an ONNX model that can be read ({error}): {remedy}") from error
    folder = file.parent.resolve()
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not (folder / name).resolve().is_relative_to(folder):
            raise EncoderError(
                f"{file} keeps weights in {name!r}, which is not in its folder, so it is not read: use a model whose "
                "files are all in one folder"
            )
    return sorted(names)


def _locations(content: mmap.mmap, start: int, stop: int, message: str) -> Iterator[str]:
    kinds = _MESSAGES[message]
    for number, first, last in _fields(content, start, stop):
        kind = kinds.get(number)
        if kind == "Entry":
            entry = {n: bytes(content[a:b]) for n, a, b in _fields(content, first, last)}
            if entry.get(_KEY) == b"location":
                yield entry.get(_VALUE, b"").decode("utf-8")
        elif kind is not None:
            yield from _locations(content, first, last, kind)


def _fields(content: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field that holds bytes."""
    while start < stop:
        tag, start = _varint(content, start)
        wire_type = tag & 7
        if wire_type == _BYTES:
            length, start = _varint(content, start)
            if start + length > stop:
                raise ValueError("it is cut short")
            yield tag >> 3, start, start + length
            start += length
        elif wire_type == _VARINT:
            _, start = _varint(content, start)
        elif wire_type in (_FIXED64, _FIXED32):
            start += 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"a field has the type {wire_type}")


def _varint(content: mmap.mmap, start: int) -> tuple[int, int]:
    """The number at ``start``, and where it ends."""
    value = shift = 0
    while True:
        byte = content[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")

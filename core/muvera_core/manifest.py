"""The one file that says what an index is: ``manifest.json``. A folder without it is not an index."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from muvera_core.errors import CorruptIndexError, MuveraError, NotAnIndexError, UnsupportedFormatError
from muvera_core.fde import FDEConfig
from muvera_core.token_codec import TokenCodec, TokenPrecision

MANIFEST_NAME = "manifest.json"
FORMAT = "muvera-index"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What was decided when the index was made, and can't change after.

    Attributes:
        index_id: random name of this index; files derived from another index's documents carry another one.
        encoder: fingerprint of the token encoder.
        token_precision: how token vectors are stored.
        fde: settings of stage one, which also give the token vectors' dimension.
    """

    index_id: str
    encoder: str
    token_precision: TokenPrecision
    fde: FDEConfig

    def __post_init__(self) -> None:
        _ = self.codec  # refuses an unknown precision

    @property
    def codec(self) -> TokenCodec:
        """Codec of the token rows."""
        return TokenCodec(self.token_precision, self.fde.dimension)

    def write(self, folder: Path) -> None:
        """Write the manifest so that it is there whole or not at all."""
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        write_json(folder / MANIFEST_NAME, content)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of an index.

        Raises:
            NotAnIndexError: there is none, or the file is something else's.
            UnsupportedFormatError: a newer muvera wrote it.
            CorruptIndexError: it says something that can't be.
        """
        path = folder / MANIFEST_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise NotAnIndexError(
                f"{folder} is not a muvera index (it has no {MANIFEST_NAME}): make one with MuveraIndex.create"
            ) from None
        except ValueError as error:
            raise CorruptIndexError(f"{path} is not valid JSON ({error}): restore it from a backup") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise NotAnIndexError(f"{path} was not written by muvera: give the folder of an index")
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            raise UnsupportedFormatError(
                f"{folder} has index format {version!r}, this version reads {FORMAT_VERSION}: "
                "upgrade muvera-core (pip install -U muvera-core), or index the documents again"
            )
        try:
            return cls(
                index_id=_text(content["index_id"]),
                encoder=_text(content["encoder"]),
                token_precision=content["token_precision"],
                fde=FDEConfig(**content["fde"]),
            )
        except (KeyError, TypeError, MuveraError) as error:
            raise CorruptIndexError(f"{path} is incomplete or wrong ({error!r}): restore it from a backup") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file so that after any interruption the old content or the new is there, whole."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new files in a folder survive a power cut, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value

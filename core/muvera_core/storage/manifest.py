"""The one file that says what an index is: ``manifest.json``. A folder without it is not an index."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from muvera_core.encoders import require_pool_factor
from muvera_core.errors import (
    CorruptIndexError,
    InvalidInputError,
    MuveraError,
    NotAnIndexError,
    StorageError,
    UnsupportedFormatError,
)
from muvera_core.files import read_small, storage_errors, write_json
from muvera_core.set_encoders import FDEConfig
from muvera_core.stage_one import Tuning
from muvera_core.storage.database import DATABASE_NAME
from muvera_core.storage.token_codec import TokenCodec, TokenPrecision

MANIFEST_NAME = "manifest.json"
FORMAT = "muvera-index"
FORMAT_VERSION = 2
_SIZE_LIMIT = 1 << 16


@dataclass(frozen=True)
class Manifest:
    """What an index is: decided when it was made, but for ``tuning``, which ``optimize`` changes.

    Attributes:
        index_id: random name of this index; files derived from another index's documents carry another one.
        encoder: fingerprint of the token encoder.
        token_precision: how token vectors are stored.
        fde: settings of stage one, which also give the token vectors' dimension.
        pool_factor: of so many tokens of a document about one is stored; see ``token_pooling``.
        tuning: what was chosen for stage one later.
    """

    index_id: str
    encoder: str
    token_precision: TokenPrecision
    fde: FDEConfig
    pool_factor: int = 1
    tuning: Tuning | None = None

    def __post_init__(self) -> None:
        _ = self.codec  # refuses an unknown precision
        require_pool_factor(self.pool_factor)
        learned = None if self.tuning is None else self.tuning.set_encoder
        if learned is not None and learned.dimension != self.fde.dimension:
            raise InvalidInputError(f"set_encoder is for dimension {learned.dimension}, not {self.fde.dimension}")

    @property
    def codec(self) -> TokenCodec:
        """Codec of the token rows."""
        return TokenCodec(self.token_precision, self.fde.dimension)

    def write(self, folder: Path) -> None:
        """Write the manifest so that it is there whole or not at all."""
        with storage_errors(folder / MANIFEST_NAME):
            write_json(folder / MANIFEST_NAME, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        content["tuning"] = None if self.tuning is None else self.tuning.as_json()
        return {**content, "checksum": _checksum(content)}

    def as_text(self) -> str:
        """The same as text, for the copy in the database."""
        return json.dumps(self.as_json())

    def require_copy(self, copy: Any, folder: Path) -> None:
        """Raise CorruptIndexError unless the copy in the database, where there is one, is of the same index."""
        try:
            same = copy is None or json.loads(copy)["index_id"] == self.index_id
        except (KeyError, TypeError, ValueError, RecursionError):
            same = False
        if not same:
            raise CorruptIndexError(
                f"{MANIFEST_NAME} and {DATABASE_NAME} in {folder} belong to different indexes: "
                "restore both files from one backup"
            )

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of an index.

        Raises:
            NotAnIndexError: there is none, or the file is something else's.
            UnsupportedFormatError: another version of muvera wrote it.
            CorruptIndexError: it is damaged.
        """
        return cls.from_json(read_manifest(folder), folder / MANIFEST_NAME)

    @classmethod
    def from_text(cls, text: Any, source: Path) -> Manifest:
        """What ``as_text`` made. Raises as ``read`` does; ``source`` is named in errors."""
        try:
            content = json.loads(text)
            if not isinstance(content, dict):
                raise TypeError("it isn't a JSON object")
        except (TypeError, ValueError, RecursionError) as error:
            raise _damaged(source, error) from error
        return cls.from_json(content, source)

    @classmethod
    def from_json(cls, content: dict[str, Any], source: Path) -> Manifest:
        """What ``as_json`` made. Raises as ``read`` does; ``source`` is named in errors."""
        if "checksum" in content and content["checksum"] != _checksum(content):
            raise _damaged(source, ValueError("its checksum doesn't fit its content"))
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            advice = (
                "open it once for writing, which brings it up to date"
                if isinstance(version, int) and 0 < version < FORMAT_VERSION
                else "upgrade muvera-core (pip install -U muvera-core), or index the documents again"
            )
            raise UnsupportedFormatError(
                f"{source.parent} has index format {version!r}, this version reads {FORMAT_VERSION}: {advice}"
            )
        try:
            _ = content["checksum"]
            return cls(
                index_id=_text(content["index_id"]),
                encoder=_text(content["encoder"]),
                token_precision=content["token_precision"],
                fde=FDEConfig(**content["fde"]),
                pool_factor=content.get("pool_factor", 1),
                tuning=None if content.get("tuning") is None else Tuning.from_json(content["tuning"]),
            )
        except (KeyError, TypeError, ValueError, MuveraError) as error:
            raise _damaged(source, error) from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest's content, whatever its version.

    Raises:
        NotAnIndexError: there is none, or the file is something else's.
        CorruptIndexError: it isn't JSON, or not a plain file.
    """
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(read_small(path, _SIZE_LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        advice = "make one with MuveraIndex.create"
        if os.path.lexists(folder / DATABASE_NAME):
            advice += "; or, if it was one and the file got lost, restore it with muvera_core.repair_index"
        raise NotAnIndexError(f"{folder} is not a muvera index (it has no {MANIFEST_NAME}): {advice}") from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise StorageError(f"{path} can't be read ({error}): see to the disk and the permissions") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise NotAnIndexError(f"{path} was not written by muvera: give the folder of an index")
    return content


def read_encoder(folder: Path) -> str:
    """The fingerprint of an index's token encoder, whatever its format. Raises as ``Manifest.read``."""
    content = read_manifest(folder)
    encoder = content.get("encoder")
    return encoder if isinstance(encoder, str) else Manifest.from_json(content, folder / MANIFEST_NAME).encoder


def _damaged(path: Path, error: Exception) -> CorruptIndexError:
    return CorruptIndexError(
        f"{path} is damaged ({error!r}): the documents are safe; muvera_core.repair_index restores it from its copy"
    )


def _checksum(content: dict[str, Any]) -> int:
    """Of a manifest of any version: it is compared before the version is, so no version may compute it otherwise."""
    return zlib.crc32(json.dumps({**content, "checksum": None}, sort_keys=True).encode())


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value

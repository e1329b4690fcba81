"""The file ``manifest.json``, which holds an index's settings. A folder without it is not an index."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from muvera_core.encoders import TokenReduction
from muvera_core.errors import (
    RUN_REPAIR,
    CorruptIndexError,
    InvalidInputError,
    MuveraError,
    NotAnIndexError,
    StorageError,
    UnsupportedFormatError,
)
from muvera_core.files import read_small, storage_errors, write_json
from muvera_core.lexical import LexicalConfig
from muvera_core.set_encoders import FDEConfig
from muvera_core.stage_one import Tuning
from muvera_core.storage.database import DATABASE_NAME
from muvera_core.storage.token_codec import TokenCodec, TokenPrecision
from muvera_core.storage.words import default_lexical

MANIFEST_NAME = "manifest.json"
# The file that a folder has instead if it is an index over several shards.
CLUSTER_NAME = "cluster.json"
FORMAT = "muvera-index"
FORMAT_VERSION = 5
_SIZE_LIMIT = 1 << 16


@dataclass(frozen=True)
class Manifest:
    """Settings of an index. They are fixed when it is made, except ``tuning`` and ``token_precision``, which
    ``optimize`` changes, and ``lexical``, which ``set_lexical`` changes.

    Attributes:
        index_id: random name of the index, noted in files that are derived from its documents.
        encoder: fingerprint of the token encoder.
        token_precision: how token vectors are stored.
        fde: settings of stage one's first encoding. They include the dimension of token vectors.
        pool_factor: about one in ``pool_factor`` tokens of a document is stored; see ``token_pooling``.
        tuning: what ``optimize`` chose for stage one. None before that.
        lexical: settings of the word index. None if there is none.
        encoder_info: name and settings of the token encoder, for people to read. Earlier versions did not note them.
        keep_tokens: the share of a document's tokens that is kept before they are pooled; see ``token_pruning``.

    Raises:
        InvalidInputError: a setting is invalid.
    """

    index_id: str
    encoder: str
    token_precision: TokenPrecision
    fde: FDEConfig
    pool_factor: int = 1
    tuning: Tuning | None = None
    lexical: LexicalConfig | None = None
    encoder_info: dict[str, Any] = field(default_factory=dict)
    keep_tokens: float = 1.0

    def __post_init__(self) -> None:
        _ = self.codec  # raises if the precision is unknown
        _ = self.reduction  # raises if a setting is out of its range
        learned = None if self.tuning is None else self.tuning.set_encoder
        if learned is not None and learned.dimension != self.fde.dimension:
            raise InvalidInputError(f"set_encoder must have dimension {self.fde.dimension}, got {learned.dimension}")

    @property
    def codec(self) -> TokenCodec:
        """Codec of the token rows."""
        return TokenCodec(self.token_precision, self.fde.dimension)

    @property
    def reduction(self) -> TokenReduction:
        """What is done to a document's tokens before they are stored."""
        return TokenReduction(self.keep_tokens, self.pool_factor)

    def write(self, folder: Path) -> None:
        """Write the manifest. After an interruption the file holds the old content or the new one."""
        with storage_errors(folder / MANIFEST_NAME):
            write_json(folder / MANIFEST_NAME, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        content["tuning"] = None if self.tuning is None else self.tuning.as_json()
        return {**content, "checksum": _checksum(content)}

    def as_text(self) -> str:
        """The content of the file as text, for the copy in the database."""
        return json.dumps(self.as_json())

    def require_copy(self, copy: Any, folder: Path) -> None:
        """Check that the copy in the database, if there is one, belongs to the same index.

        Raises:
            CorruptIndexError: the copy belongs to another index, or is damaged.
        """
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
            NotAnIndexError: there is no manifest, or muvera did not write the file.
            UnsupportedFormatError: the index has another format.
            CorruptIndexError: the manifest is damaged.
        """
        return cls.from_json(read_manifest(folder), folder / MANIFEST_NAME)

    @classmethod
    def from_text(cls, text: Any, source: Path) -> Manifest:
        """Parse what ``as_text`` made. Raises like ``read``; error messages name ``source``."""
        try:
            content = json.loads(text)
            if not isinstance(content, dict):
                raise TypeError("it is not a JSON object")
        except (TypeError, ValueError, RecursionError) as error:
            raise _damaged(source, error) from error
        return cls.from_json(content, source)

    @classmethod
    def from_copy(cls, text: Any, source: Path) -> Manifest:
        """Parse the copy in a database, which may be of format 2, 3 or 4. Raises like ``read``."""
        try:
            content = json.loads(text)
            version = content["format_version"]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise _damaged(source, error) from error
        return cls.from_earlier_format(content, source) if version in (2, 3, 4) else cls.from_json(content, source)

    @classmethod
    def from_json(cls, content: dict[str, Any], source: Path) -> Manifest:
        """Parse what ``as_json`` made. Raises like ``read``; error messages name ``source``."""
        require_checksum(content, source)
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            advice = (
                "open it once for writing, which converts it"
                if isinstance(version, int) and 0 < version < FORMAT_VERSION
                else "upgrade muvera-core (pip install -U muvera-core), or index the documents again"
            )
            raise UnsupportedFormatError(
                f"{source.parent} has index format {version!r}, but this muvera reads format {FORMAT_VERSION}: {advice}"
            )
        return cls._parsed(content, source)

    @classmethod
    def from_earlier_format(cls, content: dict[str, Any], source: Path) -> Manifest:
        """Parse a manifest of format 2, 3 or 4, for an index with a word index now. Raises like ``read``."""
        require_checksum(content, source)
        return replace(cls._parsed(content, source), lexical=default_lexical())

    @classmethod
    def _parsed(cls, content: dict[str, Any], source: Path) -> Manifest:
        try:
            _ = content["checksum"]  # a manifest without one is damaged
            return cls(
                index_id=_text(content["index_id"]),
                encoder=_text(content["encoder"]),
                token_precision=content["token_precision"],
                fde=FDEConfig(**content["fde"]),
                pool_factor=content.get("pool_factor", 1),
                tuning=None if content.get("tuning") is None else Tuning.from_json(content["tuning"]),
                lexical=_lexical(content.get("lexical")),
                encoder_info=dict(content.get("encoder_info", {})),
                keep_tokens=content.get("keep_tokens", 1.0),
            )
        except (KeyError, TypeError, ValueError, MuveraError) as error:
            raise _damaged(source, error) from error


def noted_precision(copy: Any, given: TokenPrecision) -> TokenPrecision:
    """The token precision in a manifest's copy in the database, or ``given`` if there is no copy.

    It is committed with the token rows, before the manifest itself is written.

    Raises:
        CorruptIndexError: the copy is damaged.
    """
    if copy is None:
        return given
    try:
        return TokenCodec(json.loads(copy)["token_precision"], 1).precision
    except (KeyError, TypeError, ValueError, RecursionError, InvalidInputError) as error:
        raise _damaged_copy(error) from error


def noted_lexical(copy: Any) -> LexicalConfig | None:
    """The settings of the word index in a manifest's copy in the database. None if there is no copy.

    They are committed with the words, before the manifest itself is written.

    Raises:
        CorruptIndexError: the copy is damaged.
    """
    try:
        return None if copy is None else _lexical(json.loads(copy).get("lexical"))
    except (AttributeError, TypeError, ValueError, RecursionError, InvalidInputError) as error:
        raise _damaged_copy(error) from error


def _lexical(content: Any) -> LexicalConfig | None:
    return None if content is None else LexicalConfig.from_json(content)


def _damaged_copy(error: Exception) -> CorruptIndexError:
    return CorruptIndexError(
        f"the copy of {MANIFEST_NAME} in {DATABASE_NAME} is damaged ({error!r}): {RUN_REPAIR}, which restores it"
    )


def holds_index(folder: Path) -> bool:
    """Whether a folder has a manifest, and so is an index."""
    return os.path.lexists(folder / MANIFEST_NAME)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest's content, of any version of the format.

    Raises:
        NotAnIndexError: there is no manifest, or muvera did not write the file.
        CorruptIndexError: the manifest is not JSON, or not a plain file.
        StorageError: the manifest cannot be read.
    """
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(read_small(path, _SIZE_LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        advice = "give the folder of an index, or make one first"
        if os.path.lexists(folder / DATABASE_NAME):
            advice += f"; or, if it was an index and lost that file, {RUN_REPAIR}"
        elif os.path.lexists(folder / CLUSTER_NAME):
            advice = "it is a sharded index, which muvera_core.distributed.ShardedMuveraIndex opens"
        raise NotAnIndexError(f"{folder} is not a muvera index (it has no {MANIFEST_NAME}): {advice}") from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error}): check the disk and the permissions") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise NotAnIndexError(f"{path} was not written by muvera: give the folder of an index")
    return content


def read_encoder(folder: Path) -> str:
    """The fingerprint of an index's token encoder, in any version of the format. Raises like ``Manifest.read``."""
    content = read_manifest(folder)
    encoder = content.get("encoder")
    return encoder if isinstance(encoder, str) else Manifest.from_json(content, folder / MANIFEST_NAME).encoder


def _damaged(path: Path, error: Exception) -> CorruptIndexError:
    return CorruptIndexError(
        f"{path} is damaged ({error!r}), but the documents are safe: {RUN_REPAIR}, which restores the file"
    )


def require_checksum(content: dict[str, Any], source: Path) -> None:
    """Raise CorruptIndexError if a manifest does not match its checksum. Format 1 had none."""
    if "checksum" in content and content["checksum"] != _checksum(content):
        raise _damaged(source, ValueError("its checksum does not match its content"))


def _checksum(content: dict[str, Any]) -> int:
    """CRC-32 of a manifest. Every version computes it in this way, since it is compared before the version is."""
    return zlib.crc32(json.dumps({**content, "checksum": None}, sort_keys=True).encode())


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value

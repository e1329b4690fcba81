"""The one file that says what an index is: ``manifest.json``. A folder without it is not an index."""

from __future__ import annotations

import json
import os
import re
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from muvera_core.database import DATABASE_NAME
from muvera_core.errors import (
    CorruptIndexError,
    InvalidInputError,
    MuveraError,
    NotAnIndexError,
    StorageError,
    UnsupportedFormatError,
)
from muvera_core.fde import FDEConfig
from muvera_core.files import read_small, storage_errors, write_json
from muvera_core.graph_parameters import DEFAULT_GRAPH, GraphParameters
from muvera_core.lemur import LearnedSetEncoderConfig
from muvera_core.token_codec import TokenCodec, TokenPrecision
from muvera_core.token_pooling import require_pool_factor
from muvera_core.validation import require_count, shown

MANIFEST_NAME = "manifest.json"
FORMAT = "muvera-index"
FORMAT_VERSION = 2
_SIZE_LIMIT = 1 << 16
_WEIGHTS_NAME = re.compile(r"set_encoder-[0-9a-f]{32}\.weights")
_MAX_CANDIDATES = (1 << 31) - 1
_MAX_MEASURED = 1e15


@dataclass(frozen=True)
class Tuning:
    """What ``optimize`` chose for stage one in place of the encoding that the index was made with.

    Attributes:
        set_encoder: settings of the learned encoder; None where the index's own encoding is kept.
        weights: name of the file with its matrices, by their hash; None where there is no learned encoder.
        weights_checksum: CRC-32 of that file.
        k: number of hits that it was tuned for.
        n_candidates: how many candidates to rerank for ``k`` hits.
        beam: of the graph; see ``HnswCandidates``.
        measured: what was measured when it was chosen, by name.
        graph: what the graph is made with.
    """

    set_encoder: LearnedSetEncoderConfig | None
    weights: str | None
    weights_checksum: int | None
    k: int
    n_candidates: int
    beam: int
    measured: dict[str, float]
    graph: GraphParameters = DEFAULT_GRAPH

    def __post_init__(self) -> None:
        for name in ("k", "n_candidates", "beam"):
            require_count(name, getattr(self, name))
        if self.n_candidates > _MAX_CANDIDATES or self.beam > _MAX_CANDIDATES:
            raise InvalidInputError(f"n_candidates and beam must be at most {_MAX_CANDIDATES}")
        if self.weights is not None and not _WEIGHTS_NAME.fullmatch(self.weights):
            raise InvalidInputError(f"weights must be the name of a weights file, got {self.weights!r}")
        if type(self.weights_checksum) not in (int, type(None)):
            raise InvalidInputError(f"weights_checksum must be a whole number, got {shown(self.weights_checksum)}")
        if not all(type(value) in (int, float) and abs(value) <= _MAX_MEASURED for value in self.measured.values()):
            raise InvalidInputError(f"measured must hold numbers up to {_MAX_MEASURED}, got {shown(self.measured)}")

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Tuning:
        """What ``asdict`` made."""
        settings = content["set_encoder"]
        learned = None if settings is None else LearnedSetEncoderConfig(**settings)
        if (learned is None) != (content["weights"] is None):
            raise InvalidInputError("set_encoder and weights must both be there, or neither")
        graph = GraphParameters(**content.get("graph", {}))  # earlier versions had but the default
        return cls(**{**content, "set_encoder": learned, "measured": dict(content["measured"]), "graph": graph})


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

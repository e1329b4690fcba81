"""Facts about an index, from its files alone: no model and no stage one is loaded."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from muvera_core.errors import InvalidInputError
from muvera_core.files import storage_errors
from muvera_core.native import kernel_name
from muvera_core.storage import FORMAT_VERSION, LEARNED_NAME, LearnedSettings, Manifest, Store
from muvera_core.validation import require_path


@dataclass(frozen=True)
class IndexInfo:
    """Content and size of an index.

    Attributes:
        path: the index's folder.
        manifest: its settings.
        n_documents: number of documents.
        n_tokens: number of token vectors of all documents.
        sizes: bytes of each file, by its path relative to the folder.
        kernel: what computes exact MaxSim on this machine's CPU: a compiled kernel's name, or "numpy".
        learned: what it learned about scores. If that is damaged, nothing, as in searches.
    """

    path: Path
    manifest: Manifest
    n_documents: int
    n_tokens: int
    sizes: dict[str, int]
    kernel: str
    learned: LearnedSettings = field(default_factory=LearnedSettings)

    @property
    def n_bytes(self) -> int:
        """Size of all files, in bytes."""
        return sum(self.sizes.values())

    @property
    def bytes_per_document(self) -> float:
        """Size of all files per document, in bytes; 0 if there is no document."""
        return self.n_bytes / self.n_documents if self.n_documents else 0.0

    def as_json(self) -> dict[str, Any]:
        """The facts as a JSON object."""
        return {
            "path": str(self.path),
            "documents": self.n_documents,
            "tokens": self.n_tokens,
            "encoder": self.manifest.encoder,
            "encoder_info": self.manifest.encoder_info,
            "format_version": FORMAT_VERSION,
            "token_precision": self.manifest.token_precision,
            "pool_factor": self.manifest.pool_factor,
            "keep_tokens": self.manifest.keep_tokens,
            "fde": asdict(self.manifest.fde),
            "tuning": None if self.manifest.tuning is None else asdict(self.manifest.tuning),
            "lexical": None if self.manifest.lexical is None else asdict(self.manifest.lexical),
            "calibration": {mode: each.as_json() for mode, each in self.learned.calibrations.items()},
            "lexical_weight": self.learned.lexical_weight,
            "notes": dict(self.learned.notes),
            "bytes": self.n_bytes,
            "bytes_per_document": round(self.bytes_per_document, 1),
            "files": self.sizes,
            "kernel": self.kernel,
        }


def read_info(path: str | os.PathLike[str]) -> IndexInfo:
    """Read facts about an index. It may be open for writing elsewhere.

    Raises:
        NotAnIndexError: the folder holds no index.
        UnsupportedFormatError: the index has another format.
        CorruptIndexError: files are missing or damaged.
        StorageError: files cannot be read.
    """
    folder = require_path("path", path)
    manifest = Manifest.read(folder)
    with closing(Store(folder, manifest.codec, read_only=True)) as store:
        n_documents, n_tokens = len(store.snapshot), store.snapshot.n_tokens
        learned = _learned(store)
        # Both are committed before the manifest is written.
        manifest = replace(manifest, token_precision=store.codec.precision, lexical=store.snapshot.lexical)
    with storage_errors(folder):
        sizes = {
            file.relative_to(folder).as_posix(): file.lstat().st_size
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
    return IndexInfo(folder, manifest, n_documents, n_tokens, sizes, kernel_name(), learned)


def _learned(store: Store) -> LearnedSettings:
    try:
        return LearnedSettings.from_text(store.get_state(LEARNED_NAME))
    except InvalidInputError:
        return LearnedSettings()

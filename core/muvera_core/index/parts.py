"""What all calls of an index share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from muvera_core.collection import Accelerator, AutoRefresh, Collection, Writer
from muvera_core.encoders import TokenEncoder, TokenReduction
from muvera_core.hits import Document
from muvera_core.lexical import LexicalConfig
from muvera_core.storage import StoredDocument, TokenPrecision
from muvera_core.validation import require_count, require_texts

# A filter over metadata; see ``muvera_core.filters``.
Filter = Mapping[str, Any]


class IndexParts:
    """The open documents and stage one, their encoder, their writer, and what keeps a reader up to date."""

    def __init__(self, collection: Collection, encoder: TokenEncoder, *, refresh_interval: float | None = None) -> None:
        """Use ``open_or_create``, ``create`` or ``open``."""
        self._collection, self._encoder = collection, encoder
        self._writer = Writer(collection)
        self._auto_refresh = AutoRefresh(collection, refresh_interval)

    @property
    def path(self) -> Path | None:
        """The index's folder. None if the index is in memory."""
        return self._collection.folder

    @property
    def device(self) -> str:
        """The device that searches use: "cpu" or "cuda:N"."""
        return self._collection.device

    @property
    def encoder(self) -> TokenEncoder:
        """The token encoder."""
        return self._encoder

    @property
    def token_precision(self) -> TokenPrecision:
        """How token vectors are stored; see ``create``. ``optimize`` can make it coarser."""
        return self._collection.manifest.token_precision

    @property
    def pool_factor(self) -> int:
        """About one in ``pool_factor`` tokens of a document is stored; see ``create``."""
        return self._collection.manifest.pool_factor

    @property
    def keep_tokens(self) -> float:
        """The share of a document's tokens that is kept before they are pooled; see ``create``."""
        return self._collection.manifest.keep_tokens

    @property
    def lexical(self) -> LexicalConfig | None:
        """Settings of the word index; see ``create``. None if there is none."""
        return self._collection.manifest.lexical

    @property
    def _reduction(self) -> TokenReduction:
        return self._collection.manifest.reduction

    def _start_reading(self) -> None:
        self._collection.require_open()
        self._auto_refresh.refresh_if_due()


def accelerator_of(device: str, memory: int | None = None) -> Accelerator | None:
    """The GPU for a ``device`` argument; None for the CPU, for which CuPy is not imported."""
    if memory is not None:
        memory = require_count("device_memory", memory)
    if device == "cpu":
        return None
    from muvera_core.cuda.accelerator import accelerate

    return accelerate(device, memory)


def one_or_more(ids: str | Sequence[str]) -> list[str]:
    """One id or several, checked, as a list."""
    return require_texts("ids", [ids] if isinstance(ids, str) else ids)


def to_document(document: StoredDocument) -> Document:
    """A stored document as users see it."""
    return Document(document.id, document.text, document.metadata, **document.image_fields)

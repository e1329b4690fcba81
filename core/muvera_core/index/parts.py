"""What all calls of an index share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from muvera_core.collection import Accelerator
from muvera_core.encoders import TokenEncoder, TokenReduction
from muvera_core.index.engine import Engine
from muvera_core.lexical import LexicalConfig
from muvera_core.storage import TokenPrecision
from muvera_core.validation import require_count, require_texts

# A filter over metadata; see ``muvera_core.filters``.
Filter = Mapping[str, Any]


class IndexParts:
    """The engine, which has the documents, and their encoder."""

    def __init__(self, engine: Engine, encoder: TokenEncoder) -> None:
        """Use ``open_or_create``, ``create`` or ``open``."""
        self._engine, self._encoder = engine, encoder

    @property
    def path(self) -> Path | None:
        """The index's folder. None if the index is in memory."""
        return self._engine.path

    @property
    def device(self) -> str:
        """The device that searches use: "cpu" or "cuda:N"."""
        return self._engine.device

    @property
    def encoder(self) -> TokenEncoder:
        """The token encoder."""
        return self._encoder

    @property
    def token_precision(self) -> TokenPrecision:
        """How token vectors are stored; see ``create``. ``optimize`` can make it coarser."""
        return self._engine.manifest.token_precision

    @property
    def pool_factor(self) -> int:
        """About one in ``pool_factor`` tokens of a document is stored; see ``create``."""
        return self._engine.manifest.pool_factor

    @property
    def keep_tokens(self) -> float:
        """The share of a document's tokens that is kept before they are pooled; see ``create``."""
        return self._engine.manifest.keep_tokens

    @property
    def lexical(self) -> LexicalConfig | None:
        """Settings of the word index; see ``create``. None if there is none."""
        return self._engine.manifest.lexical

    @property
    def _reduction(self) -> TokenReduction:
        return self._engine.manifest.reduction

    def _start_reading(self) -> None:
        self._engine.start_reading()


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

"""An encoder for tests of bulk building: it notes what it encodes in a file."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from muvera_core import TokenEmbeddings
from muvera_core.token_embeddings import IntArray

WIDTH = 16


class NotingEncoder:
    """Gives each word a direction. Notes every text that it encodes in a file, which several processes can share.

    Args:
        notes: the file.
        dies_at: the process dies when it gets a text with this in it, as long as the file ``notes`` + ".die" exists.
        stops_at: the process stops for ever when it gets a text with this in it.
    """

    dimension = WIDTH
    fingerprint = "noting"

    def __init__(self, notes: Path | None = None, *, dies_at: str | None = None, stops_at: str | None = None) -> None:
        self._notes, self._dies_at, self._stops_at = notes, dies_at, stops_at

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """See ``TokenEncoder``."""
        if self._dies_at is not None and any(self._dies_at in text for text in texts):
            switch = Path(f"{self._notes}.die")
            if switch.exists():
                switch.unlink()
                os._exit(9)
        if self._stops_at is not None and any(self._stops_at in text for text in texts):
            threading.Event().wait()
        if self._notes is not None:
            with self._notes.open("a") as file:
                file.writelines(f"{text}\n" for text in texts)
        return self.encode_queries(texts)

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """See ``TokenEncoder``."""
        return TokenEmbeddings.from_list([np.stack([_direction(word) for word in text.split()]) for text in texts])

    def document_spans(self, text: str) -> IntArray:
        """See ``TokenEncoder``."""
        return np.zeros((len(text.split()), 2), dtype=np.int64)

    query_spans = document_spans


def _direction(word: str) -> Any:
    vector = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(WIDTH).astype(np.float32)
    return vector / np.linalg.norm(vector)

"""Blocks of documents, which are all that a worker holds, and how they travel between workers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from muvera_core.collection import Record
from muvera_core.corpus import SourceDocument
from muvera_core.distributed.building.tally import Tally
from muvera_core.token_embeddings import TokenEmbeddings

# Encoder calls, and characters, of a block. The limit on characters bounds the memory that encoding takes.
_BATCHES_TOGETHER = 4
_CHARACTERS_TOGETHER = 1 << 20


@dataclass
class Block:
    """Some documents on their way into the index.

    A block is one row of a dataset of Ray, whose columns are text and bytes: so Ray never splits or joins blocks, nor
    looks for a common type of the documents' metadata.

    Attributes:
        records: the documents that are to be encoded and written.
        tally: what became of the others.
        embeddings: the tokens of ``records``; None before they are encoded.
    """

    records: list[Record] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    embeddings: TokenEmbeddings | None = None

    def to_table(self) -> Any:
        """The block as an Arrow table of one row."""
        import pyarrow as pa

        records = json.dumps([(record.id, record.text, record.metadata) for record in self.records])
        tokens = TokenEmbeddings.from_list([]) if self.embeddings is None else self.embeddings
        columns = {
            "records": pa.array([records], pa.large_string()),
            "vectors": pa.array([tokens.vectors.tobytes()], pa.large_binary()),
            "offsets": pa.array([tokens.offsets.tobytes()], pa.large_binary()),
            "tally": pa.array([self.tally.to_json()], pa.large_string()),
        }
        return pa.table(columns)

    @classmethod
    def from_table(cls, table: Any) -> Block:
        """The block of an Arrow table of one row."""
        records = [Record(*parts) for parts in json.loads(table["records"][0].as_py())]
        offsets = np.frombuffer(table["offsets"][0].as_buffer(), dtype=np.int64)
        embeddings = None
        if len(offsets) > 1:
            vectors = np.frombuffer(table["vectors"][0].as_buffer(), dtype=np.float32)
            embeddings = TokenEmbeddings(vectors.reshape(offsets[-1], -1), offsets)
        return cls(records, Tally.from_json(table["tally"][0].as_py()), embeddings)


def block_size(batch_size: int) -> int:
    """Most documents of a block."""
    return _BATCHES_TOGETHER * batch_size


def in_blocks(documents: Iterable[SourceDocument], batch_size: int) -> Iterator[list[SourceDocument]]:
    """Documents in blocks of a few encoder calls, of at most a million characters unless one document has more."""
    block: list[SourceDocument] = []
    n_characters = 0
    for document in documents:
        length = len(document.text or "")
        if block and (len(block) == block_size(batch_size) or n_characters + length > _CHARACTERS_TOGETHER):
            yield block
            block, n_characters = [], 0
        block.append(document)
        n_characters += length
    if block:
        yield block

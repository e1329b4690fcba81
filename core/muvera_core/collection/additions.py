"""Documents to add: their records, where their tokens come from, and which of them the index already holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tqdm import tqdm

from muvera_core.batches import batched
from muvera_core.encoders import TokenEncoder, naming, pool_tokens
from muvera_core.storage import COPY_BATCH, Snapshot, Store, StoredDocument
from muvera_core.token_embeddings import TokenEmbeddings
from muvera_core.validation import require_encoded


@dataclass(frozen=True)
class Record:
    """A document without its tokens.

    Attributes:
        id: the user's id.
        text: the passage. None if only token embeddings are known.
        metadata: a JSON object, as text.
    """

    id: str
    text: str | None
    metadata: str


class TokenSource(Protocol):
    """Gives the tokens of documents that are about to be added."""

    def batches(self, places: Sequence[int]) -> Iterator[TokenEmbeddings]:
        """The tokens of the documents at these places, in order, in any grouping."""


@dataclass(frozen=True, eq=False)
class EncodedTexts:
    """Tokens that an encoder makes when they are asked for, so that they are never in memory together.

    Attributes:
        encoder: the index's encoder.
        records: the documents. Each has a text.
        pool_factor: similar tokens are merged until about one in ``pool_factor`` is left.
        batch_size: texts per call of the encoder.
        show_progress: show a bar on standard error.
    """

    encoder: TokenEncoder
    records: Sequence[Record]
    pool_factor: int
    batch_size: int
    show_progress: bool

    def batches(self, places: Sequence[int]) -> Iterator[TokenEmbeddings]:
        """See ``TokenSource``."""
        with tqdm(total=len(places), desc="encoding", unit="doc", disable=not self.show_progress) as bar:
            for batch in batched(places, self.batch_size):
                records = [self.records[place] for place in batch]
                with naming([record.id for record in records]):
                    encoded = self.encoder.encode_documents([record.text or "" for record in records])
                yield pool_tokens(require_encoded(encoded, len(batch), self.encoder.dimension), self.pool_factor)
                bar.update(len(batch))


@dataclass(frozen=True, eq=False)
class GivenTokens:
    """Tokens that the user has computed.

    Attributes:
        embeddings: the tokens of all documents.
    """

    embeddings: TokenEmbeddings

    def batches(self, places: Sequence[int]) -> Iterator[TokenEmbeddings]:
        """See ``TokenSource``."""
        if places and len(places) == len(self.embeddings):
            yield self.embeddings
        elif places:
            yield TokenEmbeddings.from_list([self.embeddings[place] for place in places])


NO_TOKENS = GivenTokens(TokenEmbeddings.from_list([]))


@dataclass(frozen=True)
class Comparison:
    """What adding documents has to do.

    Attributes:
        new: places of the documents whose tokens are needed.
        retagged: place of each document whose text is stored with other metadata, with its present key.
    """

    new: list[int]
    retagged: dict[int, int]


def compare(store: Store, snapshot: Snapshot, records: Sequence[Record]) -> Comparison:
    """Compare documents with those that are stored under the same ids. What is stored as it is appears in neither part.

    A document without text counts as new, because its tokens cannot be compared.
    """
    new: list[int] = []
    retagged: dict[int, int] = {}
    for places in batched(range(len(records)), COPY_BATCH):
        ids = [records[place].id for place in places]
        stored = {document.id: document for document in store.documents_by_id(snapshot, ids)}
        for place in places:
            record = records[place]
            before = stored.get(record.id)
            if before is None or record.text is None or before.text != record.text:
                new.append(place)
            elif not same_metadata(before, json.loads(record.metadata)):
                retagged[place] = before.key
    return Comparison(new, retagged)


def same_metadata(document: StoredDocument, metadata: Mapping[str, Any]) -> bool:
    """Whether a document has this metadata. 1, 1.0 and True differ, as they do in JSON."""
    return json.dumps(document.metadata, sort_keys=True) == json.dumps(metadata, sort_keys=True)

"""The stages of building that run in workers. Each gets and gives rows of a dataset, as Arrow tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from muvera_core.collection import EncodedTexts, Record
from muvera_core.corpus import SourceDocument, Unusable
from muvera_core.distributed.actors import EncoderSource, made_encoder
from muvera_core.distributed.building.blocks import Block, in_blocks
from muvera_core.distributed.building.duplicates import digest_of
from muvera_core.distributed.building.tally import Tally
from muvera_core.distributed.building.units import Unit, read_unit
from muvera_core.encoders import TokenEncoder, TokenReduction, describe_mismatch, require_encoder
from muvera_core.errors import EncoderMismatchError
from muvera_core.index import IndexCalls
from muvera_core.token_embeddings import FloatArray, TokenEmbeddings


def look(row: dict[str, Any]) -> dict[str, Any]:
    """Read a unit and give the digests of its ids, and what cannot be used of it."""
    tally, digests = Tally(), []
    with tally.timing("looking"):
        for entry in read_unit(Unit.from_json(row["unit"])):
            if isinstance(entry, Unusable):
                tally.skip(entry)
            else:
                digests.append(digest_of(entry.id))
    tally.n_read = len(digests)
    return {"number": row["number"], "digests": b"".join(digests), "tally": tally.to_json()}


def duplicates_in(unit: Unit) -> Iterator[Unusable]:
    """What is wrong with the documents of a unit whose id an earlier document has."""
    places = frozenset(unit.duplicates)
    documents = (entry for entry in read_unit(unit) if isinstance(entry, SourceDocument))
    return (_duplicate(document) for place, document in enumerate(documents) if place in places)


class Compare:
    """Reads units and leaves out what the index has already. Writes metadata that alone have changed.

    Args:
        index: the index.
        batch_size: texts per call of the encoder.
    """

    def __init__(self, index: IndexCalls, batch_size: int) -> None:
        self._index, self._batch_size = index, batch_size

    def __call__(self, table: Any) -> Iterator[Any]:
        """The blocks of the unit in a table of one row."""
        unit, duplicates = Unit.from_json(table["unit"][0].as_py()), Tally()
        for documents in in_blocks(_distinct(unit, duplicates), self._batch_size):
            yield self._compare(documents).to_table()
        if duplicates.n_bad:
            yield Block(tally=duplicates).to_table()

    def _compare(self, documents: Sequence[SourceDocument]) -> Block:
        """The documents to encode. The block's tally says what became of the others."""
        tally = Tally()
        changed_metadata: dict[str, Any] = {}
        records: list[Record] = []
        with tally.timing("comparing"):
            found = self._index.get([document.id for document in documents])
            stored = {document.id: document for document in found}
            for document in documents:
                before = stored.get(document.id)
                if before is None or before.text != document.text or before.image_digest is not None:
                    records.append(Record(document.id, document.text, json.dumps(document.metadata)))
                elif _canonical(before.metadata) != _canonical(document.metadata):
                    changed_metadata[document.id] = document.metadata
                else:
                    tally.n_unchanged += 1
        if changed_metadata:
            ids, metadatas = list(changed_metadata), list(changed_metadata.values())
            with tally.timing("writing"):
                self._index.update_metadata(ids, metadatas, replace=True)
            tally.n_updated += len(ids)
        return Block(records, tally)


class Encode:
    """Encodes blocks. An actor holds one, with the encoder.

    Args:
        index: the index.
        encoder: an encoder, or a function that makes one where it is used. None takes the index's.
        batch_size: texts per call of the encoder.
    """

    def __init__(self, index: IndexCalls, encoder: EncoderSource, batch_size: int) -> None:
        self._index, self._given, self._batch_size = index, encoder, batch_size

    @cached_property
    def _encoder(self) -> TokenEncoder:
        """Made by the first block: Ray passes on what a call raises, not what making the actor raises."""
        made = made_encoder(self._given)
        return self._index.encoder if made is None else require_same(made, self._index)

    def __call__(self, table: Any) -> Iterator[Any]:
        """The block in a table, with its tokens."""
        block = Block.from_table(table)
        if block.records:
            with block.tally.timing("encoding"):
                block.embeddings = self._encode(block.records)
        yield block.to_table()

    def _encode(self, records: list[Record]) -> TokenEmbeddings:
        # What the index does to tokens before it stores them, it does when it gets them.
        tokens = EncodedTexts(self._encoder, records, TokenReduction(), self._batch_size, show_progress=False)
        arrays: dict[int, FloatArray] = {}
        for places, embeddings in tokens.batches(range(len(records))):
            arrays.update(zip(places, embeddings, strict=True))
        return TokenEmbeddings.from_list([arrays[place] for place in range(len(records))])


class Write:
    """Writes blocks to the index, and gives their tallies once they are durable. An actor holds one, with the index.

    Args:
        index: the index.
    """

    def __init__(self, index: IndexCalls) -> None:
        self._index = index

    def __call__(self, table: Any) -> Iterator[Any]:
        """The tally of the block in a table."""
        block = Block.from_table(table)
        tokens = block.embeddings
        if tokens is not None:
            ids, texts = [record.id for record in block.records], [record.text or "" for record in block.records]
            metadatas = [json.loads(record.metadata) for record in block.records]
            with block.tally.timing("writing"):
                self._index.add_embeddings(tokens, ids, texts, metadatas)
            block.tally.n_encoded += len(ids)
            block.tally.n_tokens += len(tokens.vectors)
        yield Block(tally=block.tally).to_table()


def require_same(encoder: TokenEncoder, index: IndexCalls) -> TokenEncoder:
    """Return ``encoder`` if the index was made with it. Raises EncoderMismatchError otherwise."""
    made_with, given = index.encoder.fingerprint, require_encoder(encoder).fingerprint
    if given != made_with:
        raise EncoderMismatchError(f"the index {describe_mismatch(made_with, given)}")
    return encoder


def _distinct(unit: Unit, tally: Tally) -> Iterator[SourceDocument]:
    """The documents of a unit whose id no earlier document has. The tally counts the others."""
    places, seen = frozenset(unit.duplicates), -1
    for entry in read_unit(unit):
        if isinstance(entry, Unusable):
            continue  # counted when the sources were looked through
        seen += 1
        if seen in places:
            tally.skip(_duplicate(entry))
        else:
            yield entry


def _duplicate(document: SourceDocument) -> Unusable:
    return Unusable(document.file, document.line, f"its id {document.id!r} is also the id of an earlier document")


def _canonical(metadata: Mapping[str, Any]) -> str:
    """Text that differs between 1, 1.0 and True, as JSON does."""
    return json.dumps(metadata, sort_keys=True)

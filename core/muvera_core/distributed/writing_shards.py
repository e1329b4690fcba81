"""Changes of an index whose documents are spread over shards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from muvera_core.collection import EncodedTexts, Record, TokenSource
from muvera_core.distributed.placement import shard_of
from muvera_core.distributed.reading_shards import ReadingShards
from muvera_core.distributed.scatter import ShardWriteError
from muvera_core.errors import PartialWriteError, ServiceError
from muvera_core.filters import Condition
from muvera_core.lexical import LexicalConfig
from muvera_core.storage import LearnedSettings
from muvera_core.token_embeddings import FloatArray


class WritingShards(ReadingShards):
    """The part of ``Engine`` that changes documents. Each shard makes its part of a change whole or not at all."""

    def add(self, records: Sequence[Record], tokens: TokenSource, *, skip_unchanged: bool) -> None:
        """See ``Engine``. Texts are encoded by the shards, images by the caller, which holds their tokens in memory.

        Raises:
            PartialWriteError: some shards did not acknowledge their documents.
        """
        self.require_writable()
        if isinstance(tokens, EncodedTexts):
            owned = self._places_by_owner(records, range(len(records)))
            arguments: dict[int, Sequence[Any]] = {
                shard: ([records[place] for place in places], tokens.batch_size, skip_unchanged)
                for shard, places in owned.items()
            }
        else:
            encoded, kept = self._encode(records, tokens, skip_unchanged=skip_unchanged)
            owned = self._places_by_owner(records, kept)
            arguments = {
                shard: (
                    [records[place] for place in places],
                    {i: encoded[place] for i, place in enumerate(places) if place in encoded},
                    skip_unchanged,
                )
                for shard, places in owned.items()
            }
        name = "add_texts" if isinstance(tokens, EncodedTexts) else "add_tokens"
        self._write(name, arguments, {shard: [records[p].id for p in places] for shard, places in owned.items()})

    def _encode(
        self, records: Sequence[Record], tokens: TokenSource, *, skip_unchanged: bool
    ) -> tuple[dict[int, FloatArray], list[int]]:
        """Token vectors by the document's place, of those that are not stored, and the places of all to be written."""
        wanted = list(range(len(records)))
        if skip_unchanged:
            owned = self._places_by_owner(records, wanted)
            new = self._of_some("places_to_encode", {s: ([records[p] for p in some],) for s, some in owned.items()})
            wanted = sorted(owned[shard][i] for shard, places in new.items() for i in places)
        encoded: dict[int, FloatArray] = {}
        for places, embeddings in tokens.batches(wanted):
            encoded.update(zip(places, embeddings, strict=True))
        left_out = set(wanted) - encoded.keys()  # images that turned out to be damaged
        return encoded, [place for place in range(len(records)) if place not in left_out]

    def _places_by_owner(self, records: Sequence[Record], places: Iterable[int]) -> dict[int, list[int]]:
        owned: dict[int, list[int]] = {}
        for place in places:
            owned.setdefault(shard_of(records[place].id, self.scatter.n_shards), []).append(place)
        return owned

    def update_metadata(self, metadatas: Mapping[str, Mapping[str, Any]], *, replace: bool) -> int:
        """See ``Engine``. Raises PartialWriteError, too."""
        self.require_writable()
        owned = self._by_owner(metadatas)
        arguments = {shard: ({id: metadatas[id] for id in ids}, replace) for shard, ids in owned.items()}
        return sum(self._write("update_metadata", arguments, owned).values())

    def delete(self, ids: Sequence[str] | None, condition: Condition | None) -> int:
        """See ``Engine``. Raises PartialWriteError, too."""
        self.require_writable()
        owned = dict.fromkeys(range(self.scatter.n_shards), None) if ids is None else self._by_owner(ids)
        arguments = {shard: (of_it, condition) for shard, of_it in owned.items()}
        known = {shard: of_it for shard, of_it in owned.items() if of_it is not None}
        return sum(self._write("delete", arguments, known).values())

    def compact(self) -> int:
        """See ``Engine``."""
        return sum(self._write_all("compact").values())

    def set_lexical(self, lexical: LexicalConfig | None) -> None:
        """See ``Engine``. Until all shards have made it, searches by words may find those of some shards only."""
        self._write_all("set_lexical", lexical)

    def learn(self, learned: LearnedSettings) -> None:
        """Replace what was learned about scores, in all shards."""
        self._write_all("learn", learned)

    def write_note(self, name: str, note: Mapping[str, Any] | None) -> None:
        """See ``Engine``."""
        self.require_writable()
        self.learn(self.learned.with_note(name, note))

    def remove_calibration(self) -> bool:
        """See ``Engine``."""
        return any(self._write_all("remove_calibration").values())

    def _write_all(self, name: str, *arguments: Any) -> dict[int, Any]:
        self.require_writable()
        return self._write(name, dict.fromkeys(range(self.scatter.n_shards), arguments), {})

    def _write(
        self, name: str, arguments: Mapping[int, Sequence[Any]], ids: Mapping[int, Sequence[str]]
    ) -> dict[int, Any]:
        """Each shard's result. ``ids`` are those of the documents that a shard is to change, if they are known.

        Raises:
            PartialWriteError: some shards acknowledged their part, or may have, and others did not.
            MuveraError: what the shards raised, if nothing was written.
        """
        try:
            return self.scatter.write(name, arguments)
        except ShardWriteError as error:
            failed = dict(sorted(error.failed.items()))
            unknown = [shard for shard, reason in failed.items() if isinstance(reason, ServiceError)]
            if not error.done and (not unknown or len(failed) == 1):
                raise next(iter(failed.values())) from None
            reasons = {shard: str(reason) for shard, reason in failed.items()}
            first = next(iter(failed))
            raise PartialWriteError(
                f"{len(error.done)} of {len(arguments)} shards acknowledged their part of the change; shards "
                f"{', '.join(map(str, failed))} did not (shard {first}: {reasons[first]}). What was acknowledged is "
                "durable. Make the same call again to complete the change: it does nothing twice",
                tuple(id for shard in sorted(error.done) for id in ids.get(shard, ())),
                reasons,
                tuple(id for shard in unknown for id in ids.get(shard, ())),
            ) from None

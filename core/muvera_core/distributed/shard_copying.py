"""Copies documents from the shards of one generation to those of the next, page by page, exactly as they are stored."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from muvera_core.batches import runs_by_size
from muvera_core.collection import new_index_id
from muvera_core.distributed.placement import shard_of
from muvera_core.metadata import metadata_as_text
from muvera_core.set_encoders import LearnedSetEncoder
from muvera_core.stage_one import Tuning, load_weights, save_weights
from muvera_core.storage import LEARNED_NAME, Change, Manifest, Rows, Store, TokenCodec, claim_new_folder
from muvera_core.token_embeddings import IntArray, TokenEmbeddings

# A page has at most this many documents, and about this many bytes of tokens.
_PAGE_DOCUMENTS = 1024
_PAGE_BYTES = 8 << 20


@dataclass(frozen=True)
class ShardSettings:
    """What a shard knows beside its documents.

    Attributes:
        manifest: its settings.
        mean_token: the frozen mean of its tokens, float32, little-endian. None if it is not frozen.
        learned: what was learned about scores, as text. None if nothing was.
        set_encoder: the learned encoder that its tuning names. None if there is none.
        n_documents: number of documents.
        n_tokens: number of their tokens.
    """

    manifest: Manifest
    mean_token: bytes | None = None
    learned: str | None = None
    set_encoder: LearnedSetEncoder | None = None
    n_documents: int = 0
    n_tokens: int = 0


@dataclass(frozen=True, eq=False)
class Page:
    """Some documents with their stored tokens.

    Attributes:
        ids: one for each document.
        texts: their texts.
        metadatas: their metadata, as text.
        images: what is noted about their images, as text.
        rows: their token rows, end to end.
        offsets: document ``i`` owns ``rows[offsets[i]:offsets[i + 1]]``; int64, shape (documents + 1,).
        codec: the format of the rows.
    """

    ids: list[str]
    texts: list[str | None]
    metadatas: list[str]
    images: list[str | None]
    rows: Rows
    offsets: IntArray
    codec: TokenCodec

    def of(self, chosen: Sequence[int]) -> Page:
        """The documents at these places."""
        parts = [self.rows[self.offsets[i] : self.offsets[i + 1]] for i in chosen]
        return Page(
            [self.ids[i] for i in chosen],
            [self.texts[i] for i in chosen],
            [self.metadatas[i] for i in chosen],
            [self.images[i] for i in chosen],
            np.concatenate([self.rows[:0], *parts]),
            np.cumsum([0, *map(len, parts)], dtype=np.int64),
            self.codec,
        )

    def split(self, n_shards: int) -> list[Page]:
        """The documents of each of ``n_shards`` shards."""
        places: list[list[int]] = [[] for _ in range(n_shards)]
        for i, id in enumerate(self.ids):
            places[shard_of(id, n_shards)].append(i)
        return [self.of(chosen) for chosen in places]


class ShardSource:
    """Reads all documents of a shard that nobody writes to meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._given = folder, Manifest.read(folder)
        self._store = Store(folder, self._given.codec, read_only=True)

    def settings(self) -> ShardSettings:
        """See ``ShardSettings``."""
        state, snapshot = self._store.get_states(), self._store.snapshot
        manifest = self._given
        if state.get("manifest") is not None:  # it is committed with the documents, before the file is written
            manifest = Manifest.from_text(state["manifest"], self._folder)
        tuning = manifest.tuning
        is_learned = tuning is not None and tuning.set_encoder is not None
        return ShardSettings(
            replace(manifest, token_precision=snapshot.tokens.codec.precision, lexical=snapshot.lexical),
            state.get("mean_token"),
            state.get(LEARNED_NAME),
            load_weights(self._folder, tuning) if tuning is not None and is_learned else None,
            len(snapshot),
            snapshot.n_tokens,
        )

    def page(self, first: int) -> tuple[Page, int | None]:
        """Documents from the place ``first`` on, in the order of their keys, and the place of the next page, if any."""
        snapshot, codec = self._store.snapshot, self._store.codec
        count = snapshot.rows.count[first : first + _PAGE_DOCUMENTS] * codec.row_dtype.itemsize
        end = first + runs_by_size(count, _PAGE_BYTES)[0][1] if len(count) else first
        keys = snapshot.keys[first:end]
        documents = self._store.documents(snapshot, keys)
        page = Page(
            [document.id for document in documents],
            [document.text for document in documents],
            [metadata_as_text(document.metadata) for document in documents],
            [None if document.image is None else document.image.as_text() for document in documents],
            *self._store.token_rows(snapshot, keys),
            codec,
        )
        return page, end if end < len(snapshot) else None

    def close(self) -> None:
        """Close the files."""
        self._store.close()


class ShardTarget:
    """Makes a shard from pages. It becomes an index by ``finish``."""

    def __init__(self, folder: Path, settings: ShardSettings) -> None:
        """Begin a shard with these settings. What an earlier attempt left in the folder is removed."""
        self._folder, self._next_key = folder, 1
        manifest = replace(settings.manifest, index_id=new_index_id())
        shutil.rmtree(folder, ignore_errors=True)
        with ExitStack() as undo:
            self._lock = claim_new_folder(folder)
            undo.callback(self._lock.release)
            if settings.set_encoder is not None and manifest.tuning is not None:
                manifest = replace(manifest, tuning=save_weights(folder, settings.set_encoder, manifest.tuning))
            self._manifest = manifest
            values = {"mean_token": settings.mean_token, LEARNED_NAME: settings.learned}
            given = {name: value for name, value in values.items() if value is not None}
            self._store = Store(folder, manifest.codec, create={"manifest": manifest.as_text(), **given})
            undo.pop_all()

    def add(self, page: Page) -> None:
        """Add the documents of a page."""
        if not page.ids:
            return
        if page.codec == self._store.codec:
            tokens = self._store.append_rows(page.rows, page.offsets)
        else:  # a shard of the old generation was not narrowed with the others
            tokens, _ = self._store.append_tokens(
                TokenEmbeddings(page.codec.decode(page.rows, page.offsets), page.offsets)
            )
        keys = np.arange(self._next_key, self._next_key + len(page.ids), dtype=np.int64)
        self._next_key += len(keys)

        def fill(change: Change) -> None:
            change.add(keys, page.ids, page.texts, page.metadatas, page.images, tokens)

        self._store.apply(fill)

    def finish(self) -> None:
        """Make the folder an index."""
        self._store.close()
        self._manifest.write(self._folder)
        self._lock.release()


def joined_settings(shards: Sequence[ShardSettings], n_shards: int) -> tuple[ShardSettings, bool]:
    """The settings of ``n_shards`` new shards with the documents of these.

    What ``optimize`` chose stays if all shards have the same encoding. A shard that has become larger takes more
    candidates in proportion.

    Returns:
        The settings, and whether ``optimize`` should be called again.
    """
    manifest = shards[0].manifest
    tuned = [(shard, shard.manifest.tuning) for shard in shards if shard.manifest.tuning is not None]
    tuning: Tuning | None = None
    encoder = None
    if tuned and len({(each.set_encoder, each.weights_checksum) for _, each in tuned}) == 1:
        best, tuning = max(tuned, key=lambda each: each[1].n_candidates)
        growth = max(1.0, len(shards) / n_shards)
        n_candidates = int(np.ceil(tuning.n_candidates * growth))
        tuning = replace(tuning, n_candidates=n_candidates, ef=max(tuning.ef, n_candidates))
        encoder = best.set_encoder
    learned = next((shard.learned for shard in shards if shard.learned is not None), None)
    joined = ShardSettings(replace(manifest, tuning=tuning), _mean_token(shards), learned, encoder)
    return joined, bool(tuned)


def _mean_token(shards: Sequence[ShardSettings]) -> bytes | None:
    """The mean of the shards' mean tokens, weighted by their numbers of tokens."""
    frozen = [(shard.mean_token, max(1, shard.n_tokens)) for shard in shards if shard.mean_token is not None]
    if not frozen:
        return None
    means = np.stack([np.frombuffer(mean, dtype="<f4") for mean, _ in frozen])
    return bytes(np.average(means, axis=0, weights=[n for _, n in frozen]).astype("<f4").tobytes())

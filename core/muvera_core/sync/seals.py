"""Seals files: notes durably which of them are completely in the index, so that they need not be read again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from muvera_core.batches import batched
from muvera_core.corpus import ORIGIN, SourceDocument
from muvera_core.index import IndexCalls
from muvera_core.sync.known import Known
from muvera_core.sync.plan import FilePlan, Plan

_SEALED_TOGETHER = 128


class Sealer:
    """Seals the files of a plan while their documents are written. Files with stale documents wait for ``finish``.

    Seals of files that are about to change are broken before. So whatever interrupts the change, no file is sealed
    whose documents are a mixture of two of its contents.

    Args:
        index: the index.
        plan: what is written.
        known: what the index has.
        stale: names of files that have documents which are to be deleted.
    """

    def __init__(self, index: IndexCalls, plan: Plan, known: Known, stale: Iterable[str]) -> None:
        self._index, self._files, self._stale = index, plan.files, set(stale)
        self._ready: list[FilePlan] = []
        for id in plan.new | plan.changed:
            self._files[plan.places[id][0].name].n_waiting += 1
        unread = {name for name, file in self._files.items() if file.is_sealed}
        broken = {
            file.seal.id: {"file": name}
            for name, file in known.files.items()
            if file.seal is not None and name not in unread
        }
        self._write(broken)
        for name, file in self._files.items():
            if not file.n_waiting and name not in self._stale:
                self._add(file)

    def written(self, documents: Iterable[SourceDocument]) -> None:
        """Seal the files that these documents complete, now or soon."""
        for document in documents:
            file = self._files[document.file.name]
            file.n_waiting -= 1
            if not file.n_waiting and document.file.name not in self._stale:
                self._add(file)
        if len(self._ready) >= _SEALED_TOGETHER:
            self._flush()

    def finish(self) -> None:
        """Seal the rest, once stale documents are deleted."""
        for name in self._stale & self._files.keys():
            if not self._files[name].n_waiting:
                self._add(self._files[name])
        self._flush()

    def _add(self, file: FilePlan) -> None:
        if file.seal is not None and not file.is_sealed:
            self._ready.append(file)

    def _flush(self) -> None:
        ready, self._ready = self._ready, []
        seals = ((file.seal, file.file.name) for file in ready)
        self._write({seal.id: seal.as_origin(name) for seal, name in seals if seal is not None})

    def _write(self, origins: Mapping[str, dict[str, Any]]) -> None:
        for batch in batched(origins.items(), _SEALED_TOGETHER):
            self._index.update_metadata([id for id, _ in batch], [{ORIGIN: origin} for _, origin in batch])

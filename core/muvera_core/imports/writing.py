"""Writes documents of other systems to an index, in batches, so that an interrupted import can be started again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from muvera_core.batches import batched
from muvera_core.hits import Document
from muvera_core.imports.records import BadRecord, Imported
from muvera_core.index import IndexCalls
from muvera_core.validation import counted

# An interruption costs one such batch at most.
_WRITTEN_TOGETHER = 64


@dataclass
class ImportReport:
    """What an import did, or would do.

    Attributes:
        n_added: documents that the index did not have.
        n_replaced: documents whose text or metadata the index had otherwise.
        n_unchanged: documents that the index had already. They are not encoded again.
        bad: the records that could not be used, and why.
    """

    n_added: int = 0
    n_replaced: int = 0
    n_unchanged: int = 0
    bad: list[BadRecord] = field(default_factory=list)

    def __str__(self) -> str:
        done = f"{self.n_added} added, {self.n_replaced} replaced, {self.n_unchanged} unchanged"
        return f"{done}, {counted(len(self.bad), 'bad record')}" if self.bad else done


def import_documents(
    index: IndexCalls | None,
    records: Iterable[Imported],
    *,
    dry_run: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """Add the documents of a reader to an index. What the index has already is left as it is.

    Each batch is safe when the next one begins, so an interrupted import goes on where it ended if it is started again.
    Of several records with the same id the first one counts.

    Args:
        index: any index. None counts what a new index would get, and is for ``dry_run``.
        records: what a reader gives.
        dry_run: count only, and write nothing.
        on_progress: called after each batch, with its number of documents.

    Raises:
        EncoderError: the encoder returned something unusable.
        ReadOnlyIndexError: the index was opened for reading.
    """
    report = ImportReport()
    for batch in batched(_distinct(records, report.bad), _WRITTEN_TOGETHER):
        ids = [document.id for document in batch]
        stored = {} if index is None else {document.id: document for document in index.get(ids)}
        wanted = [document for document in batch if not _is_same(document, stored.get(document.id))]
        if index is not None and wanted and not dry_run:
            index.add(
                [document.text or "" for document in wanted],
                [document.id for document in wanted],
                [document.metadata for document in wanted],
            )
        n_new = sum(document.id not in stored for document in wanted)
        report.n_added += n_new
        report.n_replaced += len(wanted) - n_new
        report.n_unchanged += len(batch) - len(wanted)
        if on_progress is not None:
            on_progress(len(batch))
    return report


def _distinct(records: Iterable[Imported], bad: list[BadRecord]) -> Iterator[Document]:
    """The documents with an id that did not occur before. Everything else goes to ``bad``."""
    seen: set[str] = set()
    for record in records:
        if isinstance(record, BadRecord):
            bad.append(record)
        elif record.id in seen:
            bad.append(BadRecord(record.id, "an earlier record has the same id"))
        else:
            seen.add(record.id)
            yield record


def _is_same(document: Document, stored: Document | None) -> bool:
    return stored is not None and _content(document) == _content(stored)


def _content(document: Document) -> tuple[str | None, str]:
    # As JSON, because in Python 1 equals 1.0 and True.
    return document.text, json.dumps(document.metadata, sort_keys=True)

"""The call that brings an index in step with files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

from muvera_core.batches import batched
from muvera_core.corpus import (
    IMAGE_SUFFIXES,
    Reading,
    SourceFile,
    Unusable,
    as_root,
    as_unicode,
    find_files,
    home_of,
    name_of,
)
from muvera_core.encoders import is_image_encoder
from muvera_core.errors import InvalidInputError
from muvera_core.index import IndexCalls
from muvera_core.sync.known import Known, has_any, is_below, read_known
from muvera_core.sync.missing import Missing, find_missing, find_moved_here, refuse, require_plausible
from muvera_core.sync.plan import Plan, Planner, wanted_documents
from muvera_core.sync.remembered import recall_reading, remember_reading
from muvera_core.sync.report import SyncProgress, SyncReport, count_ignored
from muvera_core.sync.seals import Sealer
from muvera_core.sync.write import DocumentWriter
from muvera_core.validation import require_paths

OnProgress = Callable[[SyncProgress], None]
_DELETED_TOGETHER = 1024
# Most problems that an error lists.
_REPORTED = 20


def sync_files(
    index: IndexCalls,
    paths: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    reading: Reading | None = None,
    delete_missing: bool = True,
    allow_empty: bool = False,
    skip_unusable: bool = True,
    on_progress: OnProgress | None = None,
) -> SyncReport:
    """Bring an index in step with files: add what is new, replace what changed, delete what is gone.

    Call it again whenever files may have changed. Files that are the same are not read again, and texts that the index
    has, also under another name, are not encoded again. Each batch of documents is durable once it is counted, so an
    interrupted call is continued by the next one. Documents that did not come from files below ``paths`` stay as they
    are, except those of a file that was moved there.

    Documents know their file as ``path`` in their metadata: its path below the folder that holds the index, or else its
    absolute path. Files and index can be moved together.

    Args:
        index: an index that can be written to.
        paths: files, and folders to search for files. Hidden files and links in folders are skipped.
        reading: how files are read. The index remembers it. None reads them as the last time, or by the defaults. With
            another reading, all files below ``paths`` are read and split again.
        delete_missing: delete documents of files that are gone. What is gone from a text that is still there is
            deleted in any case.
        allow_empty: do it also if a path does not exist, or has lost most of its files.
        skip_unusable: leave out files, and lines of files, that cannot be used. Otherwise nothing is changed if there
            is one. Empty files are always left out.
        on_progress: is called after each file that was read and each batch that was saved.

    Returns:
        What was done, and which files were left out.

    Raises:
        InvalidInputError: a path does not exist, there is nothing to index, or ``skip_unusable`` is False and something
            cannot be used. Nothing was changed.
        FilesGoneError: a path has lost all of its files, or most of them, and so may only be out of sight. Nothing was
            changed.
        ReadOnlyIndexError: the index was opened for reading.

    Example:
        >>> from muvera_core import MuveraIndex, sync_files
        >>> with MuveraIndex.open_or_create("notes.muvera") as index:  # doctest: +SKIP
        ...     print(sync_files(index, "notes/"))
        3 added in 0.1 s, from 2 files
    """
    started = time.perf_counter()
    home = home_of(index.path)
    given = require_paths("paths", paths)
    roots = [_root_of(index, path, home) for path in given]
    names = [name_of(root, home) for root in roots]
    reading = reading or recall_reading(index) or Reading()
    tell = on_progress or (lambda progress: None)
    known = read_known(index, names, home)
    _require_existing(given, roots, names, known, allow_empty=allow_empty)
    plan = _read(index, [root for root in roots if os.path.lexists(root)], home, known, reading, tell)
    if not skip_unusable:
        _require_usable(plan)
    if not plan.files and not known.files:
        _refuse_nothing(given, plan)
    find_moved_here(index, plan, known, home)
    missing = find_missing(plan, known, keep_gone=not delete_missing)
    if not allow_empty:
        require_plausible(missing, plan, known, names, home)
    remember_reading(index, reading)
    writer = DocumentWriter(index, known)
    added, replaced = _write(index, plan, known, missing, writer, reading, tell)
    return SyncReport(
        added,
        replaced,
        plan.n_unchanged,
        len(missing.ids),
        tuple(plan.unusable),
        writer.n_reused,
        len(plan.files),
        reading,
        time.perf_counter() - started,
    )


def _root_of(index: IndexCalls, path: Path, home: Path | None) -> Path:
    """The path by which the index knows a file or folder, if links lead to it by several paths; else the given one."""
    root = as_root(path, home)
    real = as_root(Path(os.path.realpath(root)), home)
    names = name_of(root, home), name_of(real, home)
    is_known_by_real = names[0] != names[1] and not has_any(index, names[0]) and has_any(index, names[1])
    return real if is_known_by_real else root


def _require_existing(
    given: Sequence[Path], roots: Sequence[Path], names: Sequence[str], known: Known, *, allow_empty: bool
) -> None:
    for path, root, name in zip(given, roots, names, strict=True):
        if os.path.lexists(root):
            continue
        n = sum(is_below(file, name) for file in known.files)
        if not n:
            raise InvalidInputError(f"{as_unicode(str(path))} does not exist")
        if not allow_empty:
            refuse(as_unicode(str(path)), n, "does not exist")


def _read(
    index: IndexCalls, roots: Sequence[Path], home: Path | None, known: Known, reading: Reading, tell: OnProgress
) -> Plan:
    """The plan for the files below the roots."""
    takes_images = is_image_encoder(index.encoder)
    files = [
        file if isinstance(file, Unusable) or takes_images or not _is_image(file) else _without_image_encoder(file)
        for file in find_files(roots, None, None if index.path is None else index.path.absolute(), home=home)
    ]
    planner = Planner(index, known, reading, index.encoder)
    n_done, total = 0, sum(isinstance(file, SourceFile) for file in files)
    tell(SyncProgress("reading", 0, total))

    def count(name: str) -> None:
        nonlocal n_done
        n_done += 1
        tell(SyncProgress("reading", n_done, total, name))

    planner.add(files, count)
    return planner.plan


def _is_image(file: SourceFile) -> bool:
    return file.path.name.lower().endswith(IMAGE_SUFFIXES)


def _without_image_encoder(file: SourceFile) -> Unusable:
    reason = "it is an image, and the index's encoder reads texts only: make an index with a model that embeds images"
    return Unusable(file, None, reason, kind=f"unknown type {file.path.suffix}")


def _require_usable(plan: Plan) -> None:
    bad = [entry for entry in plan.unusable if not entry.is_blank and not entry.kind.startswith("unknown type")]
    if bad:
        lines = [*map(str, bad[:_REPORTED]), *["…"] * (len(bad) > _REPORTED)]
        n = f"{len(bad)} {'file or line' if len(bad) == 1 else 'files or lines'}"
        raise InvalidInputError(f"{n} cannot be used, and nothing was changed:\n" + "\n".join(lines))


def _refuse_nothing(given: Sequence[Path], plan: Plan) -> None:
    listed = ", ".join(as_unicode(str(path)) for path in given)
    found = f" (ignored: {count_ignored(plan.unusable)})" if plan.unusable else ""
    raise InvalidInputError(f"{listed}: there are no files with a text to index{found}")


def _write(
    index: IndexCalls,
    plan: Plan,
    known: Known,
    missing: Missing,
    writer: DocumentWriter,
    reading: Reading,
    tell: OnProgress,
) -> tuple[int, int]:
    """Write what differs, and delete what is missing. Returns how many documents were added, and replaced."""
    n_added = n_replaced = 0
    total = len(plan.new) + len(plan.changed)
    sealer = Sealer(index, plan, known, missing.stale)
    tell(SyncProgress("indexing", 0, total))
    for batch in writer.write(wanted_documents(plan, reading, index.encoder)):
        sealer.written(batch)
        n_added += sum(document.id in plan.new for document in batch)
        n_replaced += sum(document.id in plan.changed for document in batch)
        tell(SyncProgress("indexing", n_added + n_replaced, total, batch[-1].file.name if batch else ""))
    for ids in batched(missing.ids, _DELETED_TOGETHER):
        index.delete(list(ids))
    sealer.finish()
    return n_added, n_replaced

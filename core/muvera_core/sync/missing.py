"""Finds documents whose files, or whose part of a file, are gone, and refuses to delete too many of them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NoReturn

from muvera_core.errors import FilesGoneError
from muvera_core.index import IndexCalls
from muvera_core.sync.known import Known, KnownFile, files_with, is_below, may_exist, read_elsewhere
from muvera_core.sync.plan import Plan
from muvera_core.validation import counted

# So many files have to be gone at once before that is suspicious, unless they are all files of a path.
_SUSPICIOUS = 10


@dataclass
class Missing:
    """Documents to delete.

    Attributes:
        stale: by name of a file that is there, ids of documents that it does not have any more.
        gone: by name of a file that is not there, ids of its documents.
        moved: names of those of them whose texts are in other files now.
    """

    stale: dict[str, list[str]] = field(default_factory=dict)
    gone: dict[str, list[str]] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)

    @property
    def ids(self) -> list[str]:
        """The ids of all of them."""
        return [id for part in (self.stale, self.gone) for ids in part.values() for id in ids]


def find_moved_here(index: IndexCalls, plan: Plan, known: Known, home: Path | None) -> None:
    """Add to ``known`` what the index has of files that are gone and were the same as new files."""
    new = {each.digest for name, each in plan.files.items() if each.digest and name not in known.files}
    for name in set(files_with(index, new)):
        is_other = name not in plan.files and name not in known.files
        if is_other and not may_exist(name, home):
            read_elsewhere(index, known, name)


def find_missing(plan: Plan, known: Known, *, keep_gone: bool) -> Missing:
    """What is to be deleted.

    Documents of files and folders that cannot be read are not missing, because they may still be there.

    Args:
        plan: what was found in the files.
        known: what the index has of them.
        keep_gone: keep documents of files that are gone, and records that are gone from files.
    """
    unreadable = {entry.file.name for entry in plan.unusable if not entry.is_blank}
    found = Missing()
    for name, file in [*known.files.items(), *known.elsewhere.items()]:
        ids = [id for id in file.contents if id not in plan.places]
        if not ids or _is_protected(name, unreadable):
            continue
        present = plan.files.get(name)
        if present is not None:
            if present.is_text or not keep_gone:
                found.stale[name] = ids
        elif not keep_gone or name in known.elsewhere or _is_moved(file, plan):
            found.gone[name] = ids
            if name in known.elsewhere or _is_moved(file, plan):
                found.moved.add(name)
    return found


def require_plausible(missing: Missing, plan: Plan, known: Known, roots: Sequence[str], home: Path | None) -> None:
    """Refuse to delete what may only be out of sight, such as the files on a disk that is not mounted.

    Raises:
        FilesGoneError: all files of a path are gone, or more than half of them, or all files of a folder that is there.
    """
    gone = [name for name in missing.gone if name not in missing.moved]
    found = {*plan.files, *(entry.file.name for entry in plan.unusable)}
    for root in roots:
        of_root = [name for name in gone if is_below(name, root)]
        if not of_root:
            continue
        n_known = sum(is_below(name, root) for name in known.files)
        if not any(is_below(name, root) for name in found):
            refuse(root, len(of_root), "has no files any more")
        if len(of_root) >= _SUSPICIOUS and len(of_root) > n_known / 2:
            refuse(root, len(of_root), f"has lost {len(of_root)} of {n_known} files", "their documents")
    for folder, of_folder in _by_folder(gone).items():
        if len(of_folder) >= _SUSPICIOUS and _is_empty(folder, home):
            refuse(folder, len(of_folder), "is empty")


def refuse(place: str, n_gone: int, why: str, still_has: str | None = None) -> NoReturn:
    """Raise FilesGoneError.

    Args:
        place: name of the file or folder.
        n_gone: number of files that are gone.
        why: why that is suspicious.
        still_has: what the index has of these files, if ``why`` says how many they are.
    """
    still_has = still_has or f"documents of {counted(n_gone, 'file')} of it"
    raise FilesGoneError(
        f"{place} {why}, but the index has {still_has}. Is everything mounted? "
        "Nothing was changed. allow_empty=True deletes these documents"
    )


def _is_moved(file: KnownFile, plan: Plan) -> bool:
    """Whether most texts of a file are in the files that were read."""
    return 2 * sum(text in plan.texts for text in file.texts.values()) >= len(file.texts)


def _is_protected(name: str, unreadable: set[str]) -> bool:
    """Whether a file, or a folder above it, cannot be read."""
    if "." in unreadable and is_below(name, "."):
        return True
    return name in unreadable or any(str(above) in unreadable for above in PurePosixPath(name).parents)


def _by_folder(names: Sequence[str]) -> dict[str, list[str]]:
    """Files by each folder above them."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for folder in PurePosixPath(name).parents:
            found[str(folder)].append(name)
    return found


def _is_empty(folder: str, home: Path | None) -> bool:
    path = Path(folder) if home is None else home / folder
    try:
        with os.scandir(path) as entries:
            return next(_visible(entries), None) is None
    except OSError:
        return False


def _visible(entries: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    return (entry for entry in entries if not entry.name.startswith("."))

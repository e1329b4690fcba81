"""The documents of the chat: what is added, removed and listed, by one user at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from muvera_chat.documents.listing import ListedFile, list_files
from muvera_chat.documents.progress import Progress, reporting
from muvera_chat.documents.uploads import Uploads
from muvera_chat.origins import FILE_FIELD, name_in
from muvera_core import IndexCalls
from muvera_core.corpus import Reading, SourceDocument, SourceFile, as_root, as_unicode, home_of, read_documents
from muvera_core.errors import InvalidInputError, MuveraError
from muvera_core.sync import SyncProgress, SyncReport, recall_reading, sync_files
from muvera_core.validation import counted

# Fewer documents cannot be calibrated; a few more make it worth while.
_LEAST_CALIBRATED = 20
# The index is calibrated again when it has grown so many times over.
_GROWTH = 2


class Library:
    """An index with a folder of uploads. Any number of threads may use it; changes wait for one another."""

    def __init__(self, index: IndexCalls, uploads: Uploads | None = None) -> None:
        """Use an index.

        Args:
            index: the index.
            uploads: where uploaded files are kept. None lets nobody upload anything.
        """
        self.index, self.uploads = index, uploads
        self._changing = threading.Lock()
        self._n_calibrated = len(index) if index.calibration else 0

    @property
    def can_change(self) -> bool:
        """Whether files can be uploaded and removed."""
        return self.uploads is not None

    def follow(self, paths: Sequence[Path], on_progress: Callable[[SyncProgress], None] | None = None) -> SyncReport:
        """Bring the index in line with files and folders that the operator names, and learn what scores mean."""
        with self._changing:
            report = sync_files(self.index, paths, on_progress=on_progress)
            self._calibrate()
        return report

    def upload(self, path: Path, name: str) -> Iterator[Progress]:
        """Keep a file and index it.

        Args:
            path: where the file is now.
            name: the name that the user's browser gave it.

        Yields:
            What is being done. What goes wrong is said in the last report, not raised.
        """
        shown = as_unicode(name)

        def work(report: Callable[[Progress], None]) -> Progress:
            try:
                report(Progress(shown, "waiting"))
                with self._changing:
                    report(Progress(shown, "saving"))
                    with self._require_uploads().keeping(path, name) as kept:
                        n, said = self._index(kept, lambda progress: report(_as_told(shown, progress)))
                    report(Progress(shown, "learning", n, n))
                    self._calibrate()
            except MuveraError as error:
                return Progress(shown, "unusable", said=str(error))
            return Progress(shown, "done", n, n, said)

        yield from reporting(work)

    def remove(self, name: str) -> None:
        """Delete an uploaded file and its passages. Does nothing if there is no such file.

        Raises:
            InvalidInputError: nobody may change the library.
        """
        file = self._require_uploads().find(name)
        if file is not None:
            with self._changing:
                self._forget(file)

    def remove_all(self) -> None:
        """Delete all uploaded files and their passages. Files that the operator named stay.

        Raises:
            InvalidInputError: nobody may change the library.
        """
        with self._changing:
            for file in self._require_uploads().files():
                self._forget(file)

    def uploaded(self) -> list[str]:
        """The names of the files that were uploaded."""
        return [] if self.uploads is None else [file.name for file in self.uploads.files()]

    def files(self) -> list[ListedFile]:
        """The files whose passages are in the index, uploads first."""
        uploaded = [] if self.uploads is None else [name_in(self.index, file) for file in self.uploads.files()]
        return list_files(self.index, set(uploaded))

    def _require_uploads(self) -> Uploads:
        if self.uploads is None:
            raise InvalidInputError("the documents cannot be changed here: they are served for reading")
        return self.uploads

    def _index(self, file: Path, on_progress: Callable[[SyncProgress], None]) -> tuple[int, str]:
        """Index an uploaded file. Returns the number of its passages, also in words.

        Raises:
            InvalidInputError: the file cannot be used.
        """
        self._require_text(file)
        report = sync_files(self.index, [file], on_progress=on_progress)
        n = self.index.count({FILE_FIELD: name_in(self.index, file)})
        left_out = f" ({len(report.ignored)} left out: {report.ignored[0].reason})" if report.ignored else ""
        return n, counted(n, "passage") + left_out

    def _require_text(self, file: Path) -> None:
        """Raise InvalidInputError, which says why, unless a document can be read from a file."""
        home = home_of(self.index.path)
        reading = recall_reading(self.index) or Reading()
        reason = "it has no text"
        for entry in read_documents(SourceFile(home, as_root(file, home)), reading, self.index.encoder):
            if isinstance(entry, SourceDocument):
                return
            reason = entry.reason
        raise InvalidInputError(reason)

    def _forget(self, file: Path) -> None:
        file.unlink(missing_ok=True)
        self.index.delete(filter={FILE_FIELD: name_in(self.index, file)})

    def _calibrate(self) -> None:
        """Learn what scores mean, unless that was done for about so many documents."""
        n = len(self.index)
        if n >= max(_LEAST_CALIBRATED, _GROWTH * self._n_calibrated):
            self.index.calibrate()
            self._n_calibrated = n


def _as_told(name: str, progress: SyncProgress) -> Progress:
    stage = "reading" if progress.stage == "reading" else "indexing"
    return Progress(name, stage, progress.done, progress.total)  # type: ignore[arg-type]

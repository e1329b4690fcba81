"""The calls that look after an index."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from muvera_core.errors import InvalidInputError
from muvera_core.index.parts import IndexParts
from muvera_core.lexical import LexicalConfig, resolve_lexical
from muvera_core.metadata import normalize_metadata
from muvera_core.storage import require_fts5
from muvera_core.validation import require_count, require_path, require_text, shown

# Most characters of a note, as JSON. All notes are in memory of every process that has the index open.
_MAX_NOTE = 1 << 14


class KeepingCalls(IndexParts):
    """Keeps an index up to date, small and safe."""

    def refresh(self) -> bool:
        """Take in what another process has committed since the index was opened or last refreshed.

        An index that was opened with ``read_only=True`` answers from one snapshot. By default its searches and other
        reads do this by themselves, once a second at most (``refresh_interval`` of ``open``). They also do it if they
        must: a document to return is gone, or a filter is answered for the first time. The index that writes is always
        up to date.

        A new stage one of ``optimize`` is loaded, or derived if the writer has not saved it yet, while searches use the
        present one. If its learned encoder is lost, the index uses its first encoding, and the log says so.

        Returns:
            Whether anything had changed.

        Raises:
            CorruptIndexError: files are missing or damaged.
        """
        return self._engine.refresh()

    def compact(self) -> int:
        """Give back the space of deleted and replaced documents. Searches go on meanwhile.

        This also happens by itself when the tokens of deleted documents take half as much space as the others. It needs
        room for a copy of the tokens that stay.

        Returns:
            The number of bytes given back on disk. 0 for an index in memory.

        Raises:
            ReadOnlyIndexError: the index was opened for reading.
            StorageError: there is no room for the copy. Nothing was changed.
            CorruptIndexError: some tokens are damaged. Nothing was changed.
        """
        return self._engine.compact()

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Write an index with the same documents and settings to another folder. No text is encoded again.

        The choice of ``optimize`` is not copied.

        Raises:
            IndexExistsError: the folder is in use.
            ReadOnlyIndexError: the folder cannot be made or written.
        """
        self._engine.copy_to(require_path("path", path))

    def set_lexical(self, lexical: LexicalConfig | bool) -> None:
        """Make the word index anew, by other settings, from the texts and metadata that the index has.

        Nothing is encoded again. Searches go on meanwhile, and use the new words from one moment on. Other processes
        that read the index do so after ``refresh``. The new word index is in memory until it is complete.

        Args:
            lexical: the new settings. True takes the defaults, False removes the word index.

        Raises:
            InvalidInputError: ``lexical`` is something else, or Python's SQLite cannot make a word index.
            ReadOnlyIndexError: the index was opened for reading.
            CorruptIndexError: a document is damaged. Nothing was changed.
            StorageError: there is no room. Nothing was changed.
        """
        words = resolve_lexical(lexical)
        if words is not None:
            require_fts5()
        self._engine.set_lexical(words)

    def notes(self) -> dict[str, Any]:
        """What was written with ``write_note``, by name."""
        self._start_reading()
        return dict(self._engine.learned.notes)

    def write_note(self, name: str, note: Mapping[str, Any] | None) -> None:
        """Keep a small JSON object with the index, durably: what a program wants to know when it comes back.

        Notes change no search. Copies of the index have them, too. ``sync_files`` notes how it reads files.

        Args:
            name: the note's name. It replaces the one with the same name.
            note: an object with values that metadata can have. None removes the note.

        Raises:
            InvalidInputError: the name is empty, or the note is no such object, or larger than 16 kB as JSON.
            ReadOnlyIndexError: the index was opened for reading.
        """
        name = require_text("name", name)
        if note is not None:
            if not isinstance(note, Mapping):
                raise InvalidInputError(f"note must be a mapping or None, got {shown(note)}")
            note = normalize_metadata(note, "note")
            if len(json.dumps(note)) > _MAX_NOTE:
                raise InvalidInputError(f"the note {name!r} is larger than {_MAX_NOTE >> 10} kB: keep it in a file")
        self._engine.write_note(name, note)

    def default_candidates(self, k: int = 10) -> int:
        """The number of candidates that a search for ``k`` hits reranks by default."""
        return self._engine.default_candidates(require_count("k", k))

    def sizes(self) -> dict[str, int]:
        """The size of each part in bytes, on disk or in memory, by name."""
        return self._engine.sizes()

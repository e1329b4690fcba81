"""How an index's files are read, noted in the index."""

from __future__ import annotations

from muvera_core.corpus import Reading
from muvera_core.errors import InvalidInputError
from muvera_core.index import IndexCalls

# The note that says how files are read.
READING_NOTE = "reading"


def recall_reading(index: IndexCalls) -> Reading | None:
    """How the index's files were read last. None if it has never been in step with files.

    Raises:
        InvalidInputError: a newer version of muvera-core has noted what this one does not know.
    """
    noted = index.notes().get(READING_NOTE)
    if noted is None:
        return None
    try:
        return Reading.from_json(noted)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"the index notes how its files are read, and this muvera does not know that ({error}): upgrade "
            "muvera-core, or say how to read them"
        ) from error


def remember_reading(index: IndexCalls, reading: Reading) -> None:
    """Note durably how files are read, before the first document is read in that way."""
    value = reading.to_json()
    if index.notes().get(READING_NOTE) != value:
        index.write_note(READING_NOTE, value)

"""Every error that muvera raises on purpose.

The tree::

    MuveraError
    ├── InvalidInputError (ValueError)       an argument that can't be used; nothing was changed
    │   └── DimensionMismatchError           vectors of another width than the encoder or index has
    ├── MissingExtraError (ImportError)      an optional dependency isn't installed
    ├── DeviceError                          the GPU can't be used, or has too little memory
    ├── EncoderError                         an encoder can't be loaded or gave unusable output
    │   └── EncoderMismatchError             not the encoder that the index was made with
    └── IndexFolderError                     the index folder can't be used as asked
        ├── NotAnIndexError                  no index lives in the folder
        ├── IndexExistsError                 the folder is already taken
        ├── UnsupportedFormatError           written by a newer muvera
        ├── CorruptIndexError                the folder's files are damaged or contradict each other
        ├── StorageError                     the disk is full or fails; nothing was changed
        ├── IndexLockedError                 another process writes to the folder
        ├── ReadOnlyIndexError               a write to an index opened for reading
        ├── IndexClosedError                 used after close()
        └── ForkedIndexError                 used in a forked child of the process that opened it

Every message says what was got, what was expected and what to do next.
"""

from __future__ import annotations

# What to do about a damaged index, and about a closed one.
REPAIR_ADVICE = "run muvera_core.repair_index on the folder, or restore the file from a backup"
CLOSED = "the index is closed: open it again with MuveraIndex.open"


class MuveraError(Exception):
    """Base of all errors that muvera raises on purpose."""


class InvalidInputError(MuveraError, ValueError):
    """An argument can't be used. Nothing was changed."""


class DimensionMismatchError(InvalidInputError):
    """Vectors have another width than the encoder or the index works with."""


class MissingExtraError(MuveraError, ImportError):
    """An optional dependency isn't installed; the message names the extra to install."""


class DeviceError(MuveraError):
    """The GPU can't be used as asked: there is none, it fails, or its memory doesn't suffice. Nothing was changed."""


class EncoderError(MuveraError):
    """An encoder can't be loaded, or what it returned can't be used."""


class EncoderMismatchError(EncoderError):
    """The encoder isn't the one the index was made with, so their vectors can't be compared."""


class IndexFolderError(MuveraError):
    """Base of the errors about an index folder."""


class NotAnIndexError(IndexFolderError):
    """The folder holds no muvera index."""


class IndexExistsError(IndexFolderError):
    """A new index was asked for in a folder that is already in use."""


class UnsupportedFormatError(IndexFolderError):
    """The index was written in a format that this version can't read."""


class CorruptIndexError(IndexFolderError):
    """Files of an index are damaged, missing, or contradict each other."""


class StorageError(IndexFolderError):
    """The disk is full, fails, or the right to use it was lost. The index is as it was before the call."""


class IndexLockedError(IndexFolderError):
    """Another process, or another object in this one, has the folder open for writing."""


class ReadOnlyIndexError(IndexFolderError):
    """The index can't be written: it was opened for reading, or its folder isn't writable."""


class IndexClosedError(IndexFolderError):
    """The index was used after close()."""


class ForkedIndexError(IndexFolderError):
    """The index was used in a forked child of the process that opened it, which would damage both."""


class TruncatedTextWarning(UserWarning):
    """A text was longer than the encoder's limit; the message says what was left out."""


class DeviceFallbackWarning(UserWarning):
    """The GPU couldn't be used, so the CPU did the work; the message says why. Results are not affected."""


class StageOneNotSavedWarning(UserWarning):
    """Stage one couldn't be saved, so the next opening derives it again. No document is affected."""

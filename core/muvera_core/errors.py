"""Every error that muvera raises on purpose.

The tree::

    MuveraError
    ├── InvalidInputError (ValueError)       an argument cannot be used; nothing was changed
    │   ├── DimensionMismatchError           vectors have another width than the encoder or index expects
    │   └── FilesGoneError                   so many files are gone that they may only be out of sight
    ├── MissingExtraError (ImportError)      an optional dependency is not installed
    ├── DeviceError                          the GPU cannot be used, or has too little memory
    ├── EncoderError                         an encoder cannot be loaded, or its output is invalid
    │   └── EncoderMismatchError             the encoder is not the one that the index was made with
    ├── ServiceError                         a service or a shard does not answer, or refuses
    │   ├── ServiceTimeoutError              no answer within the time that was allowed
    │   └── ShardUnavailableError            no member of a shard answers
    ├── PartialWriteError                    some shards wrote their part of a change, others did not
    └── IndexFolderError                     base of the errors about an index folder
        ├── NotAnIndexError                  the folder holds no index
        ├── IndexExistsError                 the folder for a new index is already in use
        ├── UnsupportedFormatError           the index has a format that this version cannot read
        ├── CorruptIndexError                files are damaged, missing, or contradict each other
        ├── StorageError                     the disk is full or fails; nothing was changed
        ├── IndexLockedError                 another process, or object, writes to the folder
        ├── ReadOnlyIndexError               a write to an index that is opened for reading
        ├── IndexClosedError                 the index was used after close()
        └── ForkedIndexError                 the index was used in a forked child of the process that opened it

Warnings, all of them UserWarnings::

    TruncatedTextWarning                     a text is longer than the encoder's limit
    UnknownTextWarning                       the encoder's vocabulary lacks much of a text
    SkippedTextWarning                       texts without a visible character were not added
    SkippedImageWarning                      images, or further pages of them, that cannot be read were not added
    DeviceFallbackWarning                    the GPU could not be used, so the CPU did the work
    StageOneNotSavedWarning                  the next opening has to compute stage one again
    NothingToOptimizeWarning                 the index has so few documents that optimizing it gains nothing
    PartialResultWarning                     hits come from some of the shards only

Every message says what was got, what was expected and what to do.
"""

from __future__ import annotations

from typing import Any

# What to do about a damaged index.
RUN_REPAIR = "run muvera_core.repair_index on the folder"
REPAIR_ADVICE = f"{RUN_REPAIR}, or restore the file from a backup"
# The message of IndexClosedError.
CLOSED = "the index is closed: open it again"


class MuveraError(Exception):
    """Base of all errors that muvera raises on purpose."""


class InvalidInputError(MuveraError, ValueError):
    """An argument cannot be used. Nothing was changed."""


class DimensionMismatchError(InvalidInputError):
    """Vectors have another width than the encoder or the index expects."""


class FilesGoneError(InvalidInputError):
    """So many files are gone that they may only be out of sight, on a disk that is not mounted. Nothing was changed."""


class MissingExtraError(MuveraError, ImportError):
    """An optional dependency is not installed; the message names the extra to install."""


class DeviceError(MuveraError):
    """The GPU cannot be used: it is missing, fails, or has too little memory. Nothing was changed."""


class EncoderError(MuveraError):
    """An encoder cannot be loaded, or what it returned is invalid."""


class EncoderMismatchError(EncoderError):
    """The encoder is not the one that the index was made with, so their vectors cannot be compared."""


class ServiceError(MuveraError):
    """A service or a shard does not answer, or refuses the call."""


class ServiceTimeoutError(ServiceError):
    """There was no answer within the time that was allowed. What was to be written may be written or not."""


class ShardUnavailableError(ServiceError):
    """No member of a shard answers.

    Attributes:
        shards: numbers of the shards.
    """

    def __init__(self, message: str, shards: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.shards = shards

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.shards)


class PartialWriteError(MuveraError):
    """Some shards wrote their part of a change, others did not. Each part is written whole or not at all.

    Attributes:
        acknowledged: ids of documents whose change is durable.
        failed: for each shard that did not acknowledge its part, by number, why.
        unknown: ids whose change may be durable or not, because their shard did not answer.
    """

    def __init__(
        self,
        message: str,
        acknowledged: tuple[str, ...] = (),
        failed: dict[int, str] | None = None,
        unknown: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.acknowledged, self.failed, self.unknown = acknowledged, failed or {}, unknown

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.acknowledged, self.failed, self.unknown)


class IndexFolderError(MuveraError):
    """Base of the errors about an index folder."""


class NotAnIndexError(IndexFolderError):
    """The folder holds no muvera index."""


class IndexExistsError(IndexFolderError):
    """The folder for a new index is already in use."""


class UnsupportedFormatError(IndexFolderError):
    """The index was written in a format that this version cannot read."""


class CorruptIndexError(IndexFolderError):
    """Files of an index are damaged, missing, or contradict each other."""


class StorageError(IndexFolderError):
    """The disk is full or fails, or access was denied. The index is as it was before the call."""


class IndexLockedError(IndexFolderError):
    """Another process, or another object in this one, has the folder open for writing."""


class ReadOnlyIndexError(IndexFolderError):
    """The index cannot be written: it was opened for reading, or its folder is not writable."""


class IndexClosedError(IndexFolderError):
    """The index was used after close()."""


class ForkedIndexError(IndexFolderError):
    """The index was used in a forked child of the process that opened it, which would break it in both processes."""


class TruncatedTextWarning(UserWarning):
    """A text is longer than the encoder's limit; the message names the text, what is left out, and what to do."""


class UnknownTextWarning(UserWarning):
    """The encoder's vocabulary lacks much of a text, so it matches only the same characters, whatever they mean."""


class SkippedTextWarning(UserWarning):
    """Texts without a visible character were not added, because nothing can match them. The message names them."""


class SkippedImageWarning(UserWarning):
    """Images, or further pages of image files, were not added. The message names them and says why."""


class DeviceFallbackWarning(UserWarning):
    """The GPU could not be used, so the CPU did the work; the message says why. Results are not affected."""


class StageOneNotSavedWarning(UserWarning):
    """Stage one could not be saved, so the next opening computes it again. No document is affected."""


class NothingToOptimizeWarning(UserWarning):
    """``optimize`` changed nothing, because searches rerank all of the index's few documents anyway."""


class PartialResultWarning(UserWarning):
    """Hits come from some of the shards only, because the others did not answer. The message names those."""

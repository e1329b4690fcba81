"""What a reader raises if a file cannot be used."""

from __future__ import annotations

from muvera_core.errors import InvalidInputError


class UnreadableFileError(InvalidInputError):
    """A file cannot be used. ``read_documents`` makes an ``Unusable`` of it.

    Attributes:
        kind: what is wrong in few words; see ``Unusable``.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind

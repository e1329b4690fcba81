"""The files of an index, with the number of their passages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from muvera_chat.origins import FILE_FIELD
from muvera_core import IndexCalls
from muvera_core.corpus import file_of

# Looking through more documents than this takes too long to do it after every change.
_MAX_DOCUMENTS = 50_000


@dataclass(frozen=True)
class ListedFile:
    """A file whose passages are in the index.

    Attributes:
        path: its name in the index.
        n_passages: the number of its passages.
        is_upload: whether it was uploaded, and can be removed.
    """

    path: str
    n_passages: int
    is_upload: bool

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


def list_files(index: IndexCalls, uploaded: Collection[str]) -> list[ListedFile]:
    """The files that passages of an index come from: uploads first, then by path.

    Of an index with very many documents, only the uploads are listed.

    Args:
        index: the documents.
        uploaded: paths of uploaded files in the index.
    """
    is_large = len(index) > _MAX_DOCUMENTS
    documents = index.find({FILE_FIELD: {"$in": sorted(uploaded)}}) if is_large else index.iterate()
    counts = Counter(file_of(document.metadata) or document.id for document in documents)
    files = [ListedFile(path, n, path in uploaded) for path, n in counts.items()]
    return sorted(files, key=lambda file: (not file.is_upload, file.path))

"""The documents that the chat answers from: files that its operator names, and files that users upload."""

from __future__ import annotations

from muvera_chat.documents.library import Library
from muvera_chat.documents.listing import ListedFile
from muvera_chat.documents.progress import Problem, Progress
from muvera_chat.documents.uploads import UploadLimits, Uploads

__all__ = ["Library", "ListedFile", "Problem", "Progress", "UploadLimits", "Uploads"]

"""An open index keeps its stored documents and stage one in step, for one writer and many searches."""

from __future__ import annotations

from muvera_core.collection.accelerator import Accelerator, RerankRequest
from muvera_core.collection.collection import Collection
from muvera_core.collection.opening import copy_collection, create_collection, new_index_id, open_collection
from muvera_core.collection.refreshing import refresh
from muvera_core.collection.stage_one_source import ENCODED_TOGETHER
from muvera_core.collection.writer import Writer

__all__ = [
    "ENCODED_TOGETHER",
    "Accelerator",
    "Collection",
    "RerankRequest",
    "Writer",
    "copy_collection",
    "create_collection",
    "new_index_id",
    "open_collection",
    "refresh",
]

"""An open index keeps its stored documents and stage one in step, for one writer and many searches."""

from __future__ import annotations

from muvera_core.collection.accelerator import Accelerator, RerankRequest
from muvera_core.collection.additions import (
    EncodedImages,
    EncodedTexts,
    GivenTokens,
    Record,
    TokenSource,
    compare,
    image_problem,
    warn_of_images,
    warn_of_skipped_images,
)
from muvera_core.collection.auto_refresh import AutoRefresh
from muvera_core.collection.collection import Collection
from muvera_core.collection.copying import copy_collection
from muvera_core.collection.opening import create_collection, new_index_id, open_collection, remove_new_index
from muvera_core.collection.refreshing import refresh
from muvera_core.collection.stage_one_source import ENCODED_TOGETHER
from muvera_core.collection.writer import Writer

__all__ = [
    "ENCODED_TOGETHER",
    "Accelerator",
    "AutoRefresh",
    "Collection",
    "EncodedImages",
    "EncodedTexts",
    "GivenTokens",
    "Record",
    "RerankRequest",
    "TokenSource",
    "Writer",
    "compare",
    "copy_collection",
    "create_collection",
    "image_problem",
    "new_index_id",
    "open_collection",
    "refresh",
    "remove_new_index",
    "warn_of_images",
    "warn_of_skipped_images",
]

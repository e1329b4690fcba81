"""Reading and writing plain files safely, and checksums that detect accidental damage."""

from __future__ import annotations

from muvera_core.files.checksums import field_hash, file_checksum, id_hash, record_checksum, row_hashes, signed_sum
from muvera_core.files.copying import copy_plain, end_of_data
from muvera_core.files.places import read_fully, write_at
from muvera_core.files.plain import (
    DATABASE_ERRORS,
    is_plain_file,
    open_plain,
    read_small,
    storage_errors,
    sync_file,
    sync_folder,
    write_json,
    write_new,
)

__all__ = [
    "DATABASE_ERRORS",
    "copy_plain",
    "end_of_data",
    "field_hash",
    "file_checksum",
    "id_hash",
    "is_plain_file",
    "open_plain",
    "read_fully",
    "read_small",
    "record_checksum",
    "row_hashes",
    "signed_sum",
    "storage_errors",
    "sync_file",
    "sync_folder",
    "write_at",
    "write_json",
    "write_new",
]

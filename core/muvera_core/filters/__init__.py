"""Metadata filters: a MongoDB-style dictionary, checked once and answered by an index over metadata fields.

    {"year": {"$gte": 2020}, "author.name": "Ada"}          both must hold
    {"$or": [{"lang": "en"}, {"lang": {"$exists": False}}]}

A document's metadata is flattened into fields: a path such as ``author.name`` and a value. A list counts as each of
its elements, as in MongoDB, so ``{"tags": "red"}`` holds where ``red`` is among the tags, and as a whole: ``{"tags":
["red"]}`` holds where it is the only one. Values are equal only to
values of their own kind: 1 is neither "1" nor True. ``$ne``, ``$nin`` and ``$not`` also hold where the field is
missing. Every operator is answered by SQLite from the table that ``SCHEMA`` makes, as a set of document keys; the
logical ones combine those sets.
"""

from __future__ import annotations

from muvera_core.filters.conditions import Condition, FieldIndex
from muvera_core.filters.language import compile_filter
from muvera_core.filters.table import FIELDS_SCHEMA, damaged_paths, delete_fields, insert_fields, verify_path

__all__ = [
    "FIELDS_SCHEMA",
    "Condition",
    "FieldIndex",
    "compile_filter",
    "damaged_paths",
    "delete_fields",
    "insert_fields",
    "verify_path",
]

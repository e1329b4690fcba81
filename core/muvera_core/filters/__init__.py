"""Metadata filters: MongoDB-style dictionaries, checked once and answered from an index over metadata fields.

    {"year": {"$gte": 2020}, "author.name": "Ada"}          both must hold
    {"$or": [{"lang": "en"}, {"lang": {"$exists": False}}]}

A document's metadata is flattened into fields: a path such as ``author.name`` and a value. As in MongoDB, a list
counts both as its elements and as a whole: ``{"tags": "red"}`` holds if ``red`` is among the tags, ``{"tags":
["red"]}`` if it is the only one. Values are equal only to values of the same kind: 1 equals neither "1" nor True.
``$ne``, ``$nin`` and ``$not`` also hold if the field is missing. ``$in`` and ``$all`` of an empty list match nothing,
``$nin`` of an empty list everything.

A filter compares with the same values as metadata (see ``muvera_core.metadata``). With a date, or a string that is a
date in ISO 8601's extended form, ``$gt``, ``$gte``, ``$lt`` and ``$lte`` compare moments, in whatever form documents
hold them (see ``moments.py``). A date object also equals its moment in every form. A string equals only itself.
``patterns.py`` says what ``$like`` and ``$ilike`` match.

A nested field whose name looks like an operator without its ``$``, such as ``{"year": {"gte": 2020}}``, is an error if
documents have the field but none has an object there.

SQLite answers every operator from the table in ``FIELDS_SCHEMA``, as a set of document keys. Logical operators combine
these sets.
"""

from __future__ import annotations

from muvera_core.filters.conditions import Condition, FieldIndex
from muvera_core.filters.language import compile_filter
from muvera_core.filters.moments import moment
from muvera_core.filters.table import (
    FIELDS_SCHEMA,
    Fetch,
    damaged_paths,
    delete_fields,
    fetch_from,
    field_rows,
    insert_fields,
    verify_path,
)

__all__ = [
    "FIELDS_SCHEMA",
    "Condition",
    "Fetch",
    "FieldIndex",
    "compile_filter",
    "damaged_paths",
    "delete_fields",
    "fetch_from",
    "field_rows",
    "insert_fields",
    "moment",
    "verify_path",
]

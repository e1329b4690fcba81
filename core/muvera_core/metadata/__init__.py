"""Metadata as programs have it becomes metadata as JSON has it: strings, numbers, booleans, None, lists, dictionaries.

A date becomes its ISO 8601 text, a path or UUID its text, an enumeration's member its value, NaN None, and so on:
``scalars.py`` has the rules for single values, ``normalizing.py`` those for lists and dictionaries.
"""

from __future__ import annotations

from muvera_core.metadata.normalizing import metadata_as_text, normalize_metadata, normalize_value, require_metadatas

__all__ = ["metadata_as_text", "normalize_metadata", "normalize_value", "require_metadatas"]

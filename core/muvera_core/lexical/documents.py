"""The words of a document: those of its text, and those of the metadata fields that are searched, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from muvera_core.lexical.config import LexicalConfig
from muvera_core.lexical.words import tokenize


def document_words(config: LexicalConfig, text: str | None, metadata: Mapping[str, Any]) -> tuple[str, str] | None:
    """The words of a document's fields, and of its text, each separated by spaces. None if there are no words.

    Args:
        config: the settings.
        text: the document's text. None if it has none.
        metadata: its metadata, of JSON's types.
    """
    texts = [found for path in config.fields for found in _texts_at(metadata, path)]
    fields = " ".join(token for found in texts for token in tokenize(config, found))
    words = " ".join(tokenize(config, text)) if text else ""
    return (fields, words) if fields or words else None


def _texts_at(value: Any, path: str) -> Iterator[str]:
    """The texts and numbers at a path such as "author.name". A list counts as each of its elements."""
    if isinstance(value, list):
        for element in value:
            yield from _texts_at(element, path)
    elif not path:
        if isinstance(value, str):
            yield value
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield str(value)
    elif isinstance(value, Mapping):
        for name, inner in value.items():  # a name may have dots in it
            if path == name:
                yield from _texts_at(inner, "")
            elif path.startswith(f"{name}."):
                yield from _texts_at(inner, path[len(name) + 1 :])

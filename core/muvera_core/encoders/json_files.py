"""Reads the JSON files of a model's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muvera_core.errors import EncoderError


def read_json(file: Path, what: str, kind: type = dict, remedy: str = "download the model again") -> Any:
    """The content of a JSON file.

    Args:
        file: the file.
        what: what it holds, such as "the tokenizer's settings".
        kind: the type of its content.
        remedy: what to do about a damaged file.

    Raises:
        EncoderError: the file is missing, damaged, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderError(f"{file}, {what}, cannot be read ({error}): {remedy}") from error
    if not isinstance(content, kind):
        raise EncoderError(f"{file}, {what}, must hold a JSON {kind.__name__}, got {type(content).__name__}: {remedy}")
    return content

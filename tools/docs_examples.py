"""Shows the examples of docstrings as code in the API reference, also those under ``Example:``."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SINGULAR = re.compile(r"^(\s*)Example:$", flags=re.MULTILINE)


class ExamplesAsCode(griffe.Extension):
    """Reads ``Example:`` as the section that griffe knows as ``Examples:``."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Renames the section in an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _SINGULAR.sub(r"\1Examples:", obj.docstring.value)

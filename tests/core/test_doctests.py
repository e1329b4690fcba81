from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module", ["index.muvera_index", "search.stage_clock", "encoders.packaged.bundled", "encoders.callable"]
)
def test_examples_in_docstrings_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"muvera_core.{module}"))
    assert result.attempted > 0
    assert result.failed == 0

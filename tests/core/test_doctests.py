from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "corpus.readers.csv",
        "corpus.readers.rows",
        "corpus.sentences",
        "corpus.splitting",
        "encoders.callable",
        "encoders.packaged.bundled",
        "index.muvera_index",
        "search.stage_clock",
    ],
)
def test_examples_in_docstrings_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"muvera_core.{module}"))
    assert result.attempted > 0
    assert result.failed == 0

"""The code blocks of the pages that show models of sentence-transformers, with small models of the same kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip(
    "sentence_transformers",
    minversion="6",
    reason="needs muvera-core[sentence-transformers], in an environment of its own",
)
pytest.importorskip("markdown_it", reason="needs markdown-it-py")
pytest.importorskip("yaml", reason="needs PyYAML")

from not_run import is_installed
from snippets import PageRun


@pytest.mark.parametrize("section", ["Models of sentence-transformers and PyLate", "Page images"])
def test_a_section_about_models_runs(section: str, tmp_path: Path) -> None:
    run = PageRun("docs/encoders.md", tmp_path, frozenset([section]))
    run.run()
    assert any("SentenceTransformerEncoder(" in step.code for step in run.ran)


@pytest.mark.skipif(not is_installed("muvera-chat"), reason="needs muvera-chat")
def test_the_page_about_the_chat_runs(tmp_path: Path) -> None:
    run = PageRun("docs/chat.md", tmp_path)
    run.run()
    assert any("muvera_chat" in step.code for step in run.ran)

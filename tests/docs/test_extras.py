"""Every extra that a page or a message of the code tells a reader to install exists."""

from __future__ import annotations

import re
import tomllib

import pytest
from markdown_pages import ROOT, pages

_EXTRAS = re.compile(r"muvera-core\[([a-z0-9,-]+)\]")


def known() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return set(project["optional-dependencies"])


@pytest.mark.parametrize("page", pages())
def test_the_extras_of_a_page_exist(page: str) -> None:
    named = {extra for extras in _EXTRAS.findall((ROOT / page).read_text("utf-8")) for extra in extras.split(",")}
    assert named - known() == set()


def test_the_extras_of_messages_exist() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "core").rglob("*.py")]
    named = {extra for text in texts for extras in _EXTRAS.findall(text) for extra in extras.split(",")}
    assert named - known() == set()


def test_every_extra_is_on_the_first_page() -> None:
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert {extra for extra in known() if f"muvera-core[{extra}]" not in text} == set()

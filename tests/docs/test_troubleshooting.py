"""Every message of docs/troubleshooting.md really occurs, in these words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("markdown_it", reason="needs markdown-it-py")
pytest.importorskip("langchain_muvera", reason="needs langchain-muvera")
pytest.importorskip("uvicorn", reason="needs uvicorn")

from markdown_pages import slug_of, tokens_of
from provoked_errors import PROVOKERS, occurring

PAGE = "docs/troubleshooting.md"


def shown_messages() -> dict[str, str]:
    """The message of each section of level 3, by the section's anchor."""
    messages, anchor = {}, ""
    tokens = tokens_of(PAGE)
    for token, content in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        if token.type == "heading_open" and token.tag == "h3":
            anchor = slug_of(content.content)
        elif token.type == "fence" and anchor:
            messages[anchor] = " ".join(token.content.split())
            anchor = ""
    return messages


MESSAGES = shown_messages()


def test_every_section_has_a_message_that_is_provoked() -> None:
    assert set(MESSAGES) == set(PROVOKERS)


@pytest.mark.parametrize("anchor", sorted(MESSAGES))
def test_the_message_occurs_as_it_is_shown(anchor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    occurred = " ".join(occurring(PROVOKERS[anchor]).split())
    pattern = re.escape(MESSAGES[anchor]).replace("…", ".*")
    assert re.fullmatch(pattern, occurred), f"shown: {MESSAGES[anchor]}\noccurred: {occurred}"


def test_every_error_that_the_page_names_exists() -> None:
    from muvera_core import errors

    names = {message.split(":")[0] for message in MESSAGES.values()} - {"Error"}
    assert [name for name in names if not hasattr(errors, name)] == []

"""The site builds without a warning, and asks no other machine for anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("markdown_it", reason="needs markdown-it-py")
pytest.importorskip("mkdocs", reason="needs mkdocs")
pytest.importorskip("material", reason="needs mkdocs-material")
pytest.importorskip("mkdocstrings_handlers.python", reason="needs mkdocstrings[python]")

from markdown_pages import ROOT

# What a page loads by itself, unlike a link that a reader follows.
_LOADED = re.compile(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="([^"]+)"|<link\b[^>]*>')
_HREF = re.compile(
    r'\brel="(?:stylesheet|icon|preconnect|preload)"[^>]*\bhref="([^"]+)"|\bhref="([^"]+)"[^>]*\brel="stylesheet"'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = dict(os.environ, NO_MKDOCS_2_WARNING="1")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        if not name.startswith("registries/"):
            assert (site / name).exists(), name


def test_the_reference_shows_signatures_and_docstrings(site: Path) -> None:
    text = (site / "api" / "muvera_core.html").read_text(encoding="utf-8")
    for name in ("MuveraIndex", "search", "explain", "check_index"):
        assert name in text
    assert 'id="muvera_core.IndexCalls.search"' in text  # a call that another module defines
    assert 'id="muvera_core.MuveraIndex.open_or_create"' in text


def test_examples_that_pages_link_to_are_pages(site: Path) -> None:
    text = (site / "vector-databases.html").read_text(encoding="utf-8")
    assert 'href="repository/examples/' in text
    [target, *_] = re.findall(r'href="(repository/examples/[^"#]+)"', text)
    assert (site / target).exists()


def test_no_page_loads_anything_from_another_machine(site: Path) -> None:
    loaded = set()
    for page in site.rglob("*.html"):
        for match in _LOADED.finditer(page.read_text(encoding="utf-8")):
            href = _HREF.search(match[0])
            target = match[1] or (href[1] if href and 'rel="canonical"' not in match[0] else "")
            if target.startswith(("http:", "https:", "//")):
                loaded.add(target)
    assert loaded == set()


def test_the_search_finds_pages_in_a_browser_without_a_server(site: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs chromium")
    asked: list[str] = []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.fill("input.md-search__input", "hyperplanes")
        page.wait_for_selector(".md-search-result__article", state="attached", timeout=60_000)
        found = page.locator(".md-search-result__list").inner_text()
        browser.close()
    assert "hyperplanes" in found.lower()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []

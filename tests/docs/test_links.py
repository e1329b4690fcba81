"""Links within the repository lead somewhere, and every page of docs/ is in the navigation.

``python tests/docs/test_links.py`` lists the external links, and with ``--check`` asks each of them (needs a network).
"""

from __future__ import annotations

import re
import sys
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest

pytest.importorskip("markdown_it", reason="needs markdown-it-py")

from markdown_pages import ROOT, Link, anchors_of, links_of, pages


def resolved(link: Link) -> tuple[str, str]:
    """The path below the root that an internal link leads to, and its fragment."""
    path, _, fragment = link.target.partition("#")
    if not path:
        return link.page, fragment
    target = (ROOT / PurePosixPath(link.page).parent / path).resolve()
    return (target.relative_to(ROOT).as_posix() if target.is_relative_to(ROOT) else "..", fragment)


@pytest.mark.parametrize("page", pages())
def test_internal_links_lead_somewhere(page: str) -> None:
    broken = []
    for link in links_of(page):
        if link.is_external:
            continue
        path, fragment = resolved(link)
        if not (ROOT / path).exists() or path == "..":
            broken.append(f"{page}:{link.line}: there is no {link.target}")
        elif fragment and path.endswith(".md") and fragment not in anchors_of(path):
            broken.append(f"{page}:{link.line}: {path} has no heading #{fragment}")
    assert broken == []


def test_external_links_are_well_formed() -> None:
    bad = []
    for link in external_links():
        parts = urlsplit(link.target)
        if parts.scheme not in ("https", "http", "mailto") or (parts.scheme != "mailto" and "." not in parts.netloc):
            bad.append(f"{link.page}:{link.line}: {link.target}")
    assert bad == []


def test_links_need_no_encryption_only_on_this_machine() -> None:
    plain = [link.target for link in external_links() if link.target.startswith("http:")]
    assert [target for target in plain if urlsplit(target).hostname not in ("127.0.0.1", "localhost")] == []


def test_every_page_of_the_documentation_is_in_the_navigation() -> None:
    shown = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    shown = {path for path in shown if not path.startswith("registries/")}  # pages of other sites
    assert shown == set(navigation())


def navigation() -> list[str]:
    """The pages of the site's navigation, in their order."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    return re.findall(r"[\w./-]+\.md(?=\s*$)", text[text.index("\nnav:") :], flags=re.MULTILINE)


def external_links() -> list[Link]:
    return [link for page in pages() for link in links_of(page) if link.is_external]


def main() -> None:
    """Prints the external links, and with --check what each answers."""
    import httpx

    for target in sorted({link.target for link in external_links() if not link.target.startswith("mailto:")}):
        status = ""
        if "--check" in sys.argv:
            try:
                status = str(httpx.get(target, follow_redirects=True, timeout=20).status_code)
            except httpx.HTTPError as error:
                status = type(error).__name__
        print(f"{status}\t{target}".strip())


if __name__ == "__main__":
    main()

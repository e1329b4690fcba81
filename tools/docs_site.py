"""Hooks of the site that mkdocs.yml describes.

Pages link to files of the repository outside of docs/, such as examples, so that the links work where the repository is
read. The site has a page for each of these files.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# Read by people beside the pages: examples as code, READMEs as pages.
SHOWN = ("examples/**/*.py", "examples/**/*.md", "integrations/*/README.md", "core/*/README.md")
FOLDER = "repository"
_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each file that is shown."""
    for pattern in SHOWN:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".py":
                text = f"# {name}\n\n```python\n{text}```\n"
            files.append(File.generated(config, page_of(name), content=text))
    return files


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to files outside of docs/ into links to their pages."""
    here = page.file.src_uri
    # Where the page's file is below the root, and where its page is below docs/.
    source = here.removeprefix(f"{FOLDER}/") if here.startswith(f"{FOLDER}/") else f"docs/{here}"
    source = source.removesuffix(".md") if source.endswith(".py.md") else source

    def rewritten(link: re.Match[str]) -> str:
        if ":" in link[2]:
            return link[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        if target == "README.md":
            destination = "index.md"
        elif target.startswith("docs/"):
            destination = target.removeprefix("docs/")
        elif files.get_file_from_path(page_of(target)) is not None:
            destination = page_of(target)
        elif files.get_file_from_path(page_of(f"{target}/README.md")) is not None:
            destination = page_of(f"{target}/README.md")
        else:
            return link[0]
        relative = posixpath.relpath(destination, posixpath.dirname(here) or os.curdir)
        return f"{link[1]}{relative}{link[3] or ''}{link[4]}"

    return _LINK.sub(rewritten, markdown)


def page_of(name: str) -> str:
    """The path below docs/ of the page that shows a file of the repository."""
    return f"{FOLDER}/{name}" if name.endswith(".md") else f"{FOLDER}/{name}.md"

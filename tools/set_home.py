"""Writes where the project lives into what is published: project URLs, and absolute links in the READMEs.

    python tools/set_home.py https://github.com/OWNER/NAME --ref v0.1.0 [--documentation URL] [--folder CHECKOUT]

The repository does not name its own address, so that a fork or a mirror is as good as the original. A package index
needs it: it shows a README without the files that it links to. So the release calls this before it builds. It changes
the files in place: don't commit them.
"""

from __future__ import annotations

import argparse
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# Folder of each distribution.
DISTRIBUTIONS = (
    ".",
    "core/kernels",
    "core/multilingual",
    "core/chat",
    "integrations/langchain",
    "integrations/llama-index",
)
# The target of a link or an image of Markdown, "](target)", or of HTML, src="target" or srcset="target".
_TARGET = re.compile(r"""(?P<before>\]\(|(?:src|srcset|href)=")(?P<target>[^)\s"]+)""")
_IMAGE = (".svg", ".png", ".jpg", ".webp", ".gif")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", help="address of the repository, such as https://github.com/OWNER/NAME")
    parser.add_argument("--ref", required=True, help="the tag or commit that is released")
    parser.add_argument("--documentation", help="address of the documentation (default: docs/ in the repository)")
    parser.add_argument("--folder", type=Path, default=REPOSITORY, help="the checkout (default: this one)")
    arguments = parser.parse_args()
    home = arguments.home.rstrip("/")
    if not home.startswith("https://"):
        raise SystemExit(f"the address must start with https://, got {arguments.home}")
    urls = project_urls(home, arguments.documentation or f"{home}/tree/{arguments.ref}/docs")
    for name in distributions(arguments.folder):
        folder = arguments.folder / name
        pyproject, readme = folder / "pyproject.toml", folder / "README.md"
        pyproject.write_text(with_urls(pyproject.read_text(encoding="utf-8"), urls), encoding="utf-8")
        text = readme.read_text(encoding="utf-8")
        readme.write_text(with_absolute_links(text, name, home, arguments.ref), encoding="utf-8")
        print(f"{name}: {len(urls)} URLs, links to {home} at {arguments.ref}")


def distributions(checkout: Path) -> list[str]:
    """The folders of the distributions that the checkout has."""
    return [name for name in DISTRIBUTIONS if (checkout / name / "pyproject.toml").exists()]


def project_urls(home: str, documentation: str) -> dict[str, str]:
    """The URLs that a package index shows, by the labels that it knows."""
    return {
        "Homepage": home,
        "Documentation": documentation,
        "Repository": home,
        "Issues": f"{home}/issues",
        "Changelog": f"{home}/blob/main/CHANGELOG.md",
    }


def with_urls(pyproject: str, urls: Mapping[str, str]) -> str:
    """The text of a pyproject.toml, with these URLs instead of those that it has."""
    without = re.sub(r"\[project\.urls\]\n(?:[^\[\n].*\n)*\n?", "", pyproject)
    section = "[project.urls]\n" + "".join(f'{label} = "{url}"\n' for label, url in urls.items())
    head, build, tail = without.partition("\n[project]\n")
    if not build:
        raise SystemExit("a pyproject.toml has no section [project]")
    fields, next_section, rest = tail.partition("\n[")
    return f"{head}{build}{fields}\n{section}{next_section}{rest}"


def with_absolute_links(readme: str, folder: str, home: str, ref: str) -> str:
    """The text of a README in ``folder``, with links to files of the repository made absolute. Code stays as it is."""

    def absolute(match: re.Match[str]) -> str:
        target = match["target"]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, anchor, heading = target.partition("#")
        path = posixpath.normpath(posixpath.join(folder, path))
        kind = "raw" if path.endswith(_IMAGE) else "blob"
        return f"{match['before']}{home}/{kind}/{ref}/{path}{anchor}{heading}"

    parts = re.split(r"(^```.*?^```)", readme, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else _TARGET.sub(absolute, part) for part in parts)


if __name__ == "__main__":
    main()

"""The API reference has every public name, and no name that does not exist."""

from __future__ import annotations

import ast
import importlib
import re

import pytest

pytest.importorskip("markdown_it", reason="needs markdown-it-py")

from markdown_pages import DIRECTIVE, ROOT, blocks_of, pages

PACKAGES = ("muvera_core", "langchain_muvera", "llama_index.retrievers.muvera", "muvera_chat")
_OURS = re.compile(r"^(muvera_core|muvera_chat|langchain_muvera|llama_index\.retrievers\.muvera)\b")


def documented() -> list[str]:
    """Full names of what the reference describes."""
    found: list[str] = []
    for path in sorted((ROOT / "docs" / "api").glob("*.md")):
        found += DIRECTIVE.findall(path.read_text(encoding="utf-8"))
    return found


def object_of(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def test_nothing_is_described_twice() -> None:
    names = documented()
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_described(package: str) -> None:
    module = pytest.importorskip(package, reason=f"needs {package}")
    assert [name for name in module.__all__ if f"{package}.{name}" not in documented()] == []


@pytest.mark.parametrize("name", documented())
def test_what_is_described_exists_and_has_a_docstring(name: str) -> None:
    try:
        described = object_of(name)
    except ImportError as error:
        pytest.skip(f"needs {error.name}")
    assert (described.__doc__ or "").strip()


def test_every_error_and_warning_is_described() -> None:
    from muvera_core import errors

    names = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert names - {name.rpartition(".")[2] for name in documented()} == set()


def test_the_tree_of_errors_is_that_of_the_module() -> None:
    from muvera_core import errors

    tree = next(block.code for block in blocks_of("docs/api/errors.md") if block.language == "text")
    lines = [line.strip() for line in (errors.__doc__ or "").splitlines()]
    assert [line for line in tree.splitlines() if line.strip() not in lines] == []
    assert sum("──" in line for line in lines) == sum("──" in line for line in tree.splitlines())


def test_what_the_pages_import_is_described() -> None:
    """What a page tells a reader to import is public, so the reference has it."""
    imported = {
        f"{node.module}.{alias.name}"
        for page in pages()
        for block in blocks_of(page)
        if block.language == "python"
        for node in ast.walk(ast.parse(block.code))
        if isinstance(node, ast.ImportFrom) and _OURS.match(node.module or "")
        for alias in node.names
    }
    assert imported - set(documented()) == set()

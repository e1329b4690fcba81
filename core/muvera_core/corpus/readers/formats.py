"""The formats of files, and who reads each. Libraries are imported when the first file of a format is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import PurePath

from muvera_core.corpus.files import LINES_SUFFIXES
from muvera_core.corpus.readers.code import LANGUAGES
from muvera_core.corpus.readers.contract import Reader
from muvera_core.errors import MissingExtraError


@dataclass(frozen=True)
class Format:
    """A family of formats that one reader reads.

    Attributes:
        name: what people call it.
        suffixes: the ends of its files' names, in lower case.
        reader: the module of this package whose ``read`` reads it.
        needs: modules that have to be installed.
        extra: the extra of muvera-core that installs them.
    """

    name: str
    suffixes: tuple[str, ...]
    reader: str
    needs: tuple[str, ...] = ()
    extra: str = "documents"

    @property
    def missing(self) -> tuple[str, ...]:
        """Modules that are needed and not installed."""
        return tuple(module for module in self.needs if not _is_installed(module))

    def load(self) -> Reader:
        """The function that reads such files.

        Raises:
            MissingExtraError: a module that it needs is not installed.
        """
        if self.missing:
            raise MissingExtraError(f"{self.name} needs pip install 'muvera-core[{self.extra}]'")
        read: Reader = import_module(f"muvera_core.corpus.readers.{self.reader}").read
        return read


_HTML = ("bs4", "lxml", "markdownify")
FORMATS = (
    Format("text", (".txt", ".text", ".log", ".tex", ".adoc", ".org"), "text"),
    Format("Markdown", (".md", ".markdown", ".mdx"), "markdown"),
    Format("reStructuredText", (".rst",), "restructured_text"),
    Format("HTML", (".html", ".htm", ".xhtml"), "html", _HTML),
    Format("PDF", (".pdf",), "pdf", ("pypdfium2",)),
    Format("Word", (".docx",), "docx", ("mammoth", *_HTML)),
    Format("PowerPoint", (".pptx",), "pptx", ("pptx",)),
    Format("EPUB", (".epub",), "epub", _HTML),
    Format("a notebook", (".ipynb",), "notebook"),
    Format("CSV", (".csv", ".tsv", ".tab"), "csv"),
    Format("JSON lines", LINES_SUFFIXES, "json_lines"),
    Format("JSON", (".json",), "json_file"),
    Format("Parquet", (".parquet",), "parquet", ("pyarrow",), "parquet"),
    Format("source code", tuple(LANGUAGES), "code"),
)
# Suffixes of all files that can be read if the extras are installed.
READABLE = tuple(suffix for format in FORMATS for suffix in format.suffixes)


@cache
def _is_installed(module: str) -> bool:
    return find_spec(module) is not None


def format_of(path: PurePath) -> Format | None:
    """The format of a file, by its name; None if nothing reads it."""
    name = path.name.lower()
    return next((format for format in FORMATS if name.endswith(format.suffixes)), None)


def suffixes_of(formats: Sequence[Format] = FORMATS, *, installed: bool = True) -> tuple[str, ...]:
    """The suffixes of formats.

    Args:
        formats: the formats.
        installed: leave out those whose extra is not installed.
    """
    return tuple(suffix for format in formats if not (installed and format.missing) for suffix in format.suffixes)

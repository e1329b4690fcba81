"""Reads source code."""

from __future__ import annotations

from collections.abc import Iterator

from muvera_core.corpus.files import SourceFile
from muvera_core.corpus.readers.contract import Extracted, ExtractedText
from muvera_core.corpus.readers.decoding import read_text
from muvera_core.corpus.reading import Reading

LANGUAGES = {
    ".py": "python", ".pyi": "python", ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript",
    ".jsx": "javascript", ".ts": "typescript", ".tsx": "typescript", ".java": "java", ".kt": "kotlin",
    ".scala": "scala", ".c": "c", ".h": "c", ".cc": "c++", ".cpp": "c++", ".cxx": "c++", ".hpp": "c++",
    ".hh": "c++", ".cu": "cuda", ".cs": "c#", ".go": "go", ".rs": "rust", ".swift": "swift", ".m": "objective-c",
    ".rb": "ruby", ".php": "php", ".pl": "perl", ".lua": "lua", ".r": "r", ".jl": "julia", ".hs": "haskell",
    ".ex": "elixir", ".exs": "elixir", ".erl": "erlang", ".clj": "clojure", ".ml": "ocaml", ".sql": "sql",
    ".sh": "shell", ".bash": "shell", ".zsh": "shell", ".ps1": "powershell", ".css": "css", ".scss": "css",
    ".vue": "vue", ".svelte": "svelte", ".proto": "protobuf", ".graphql": "graphql", ".tf": "terraform",
    ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".ini": "ini", ".cfg": "ini", ".xml": "xml",
}  # fmt: skip


def read(file: SourceFile, reading: Reading) -> Iterator[Extracted]:
    """The code, which is split where it has blank lines, and the name of its language."""
    yield ExtractedText(read_text(file, reading), "code", metadata={"language": LANGUAGES[file.path.suffix.lower()]})

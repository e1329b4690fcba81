"""Recognizes the format of a source, and refuses what could only be read by running code in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

from muvera_core.errors import InvalidInputError
from muvera_core.imports import chroma, llama_index, ragatouille
from muvera_core.imports.langchain import read_langchain
from muvera_core.imports.records import Imported, read_json
from muvera_core.validation import require_choice, require_path

SourceFormat = Literal["ragatouille", "chroma", "llama-index", "langchain"]
FORMATS: tuple[SourceFormat, ...] = get_args(SourceFormat)
# The file that tells each format of folders.
_SIGNS: dict[str, SourceFormat] = {
    ragatouille.IDS: "ragatouille",
    chroma.DATABASE: "chroma",
    llama_index.DOCSTORE: "llama-index",
}
_PICKLED = (".pkl", ".pickle", ".joblib")
_EXPORT = (
    "it is a pickle, and reading one runs whatever code is in it. If you trust it, open it with the program that wrote "
    "it and write its documents as JSON. For LangChain's FAISS and other stores with a docstore: "
    "json.dump([document.model_dump() for document in store.docstore._dict.values()], open('documents.json', 'w')). "
    "Then import documents.json"
)


@dataclass(frozen=True)
class Source:
    """Where documents are imported from.

    Attributes:
        path: absolute path of the folder or file.
        format: its format.
    """

    path: Path
    format: SourceFormat


def find_source(path: str | PathLike[str], format: SourceFormat | None = None) -> Source:
    """Find what a path holds.

    Args:
        path: a folder or file of a known format, or a folder above a single one, such as ``.ragatouille``.
        format: its format. None recognizes it by the names of the files, and that of a JSON file by its content.

    Raises:
        InvalidInputError: there is nothing, nothing that is known, several sources, or a pickle.
    """
    given = require_path("path", path)
    if format is not None:
        require_choice("format", format, FORMATS)
    if not given.exists():
        raise InvalidInputError(f"{given} does not exist: give the folder or file to import from")
    if given.name.lower().endswith(_PICKLED):
        raise InvalidInputError(f"{given} cannot be imported: {_EXPORT}")
    if given.is_file():
        return Source(given, format or _format_of_file(given))
    if format is not None:
        found = [source for source in _sources_below(given) if source.format == format]
        return found[0] if len(found) == 1 else Source(given, format)
    return _only(given, _sources_below(given))


def read_source(
    path: str | PathLike[str], format: SourceFormat | None = None, collection: str | None = None
) -> Iterator[Imported]:
    """The documents of a source of any known format, and the records of it that cannot be used.

    Args:
        path: see ``find_source``.
        format: see ``find_source``.
        collection: the name of Chroma's collection. It can be left out if there is only one.

    Raises:
        InvalidInputError: see ``find_source`` and the reader of each format.
    """
    source = find_source(path, format)
    if collection is not None and source.format != "chroma":
        raise InvalidInputError(f"{source.path} is of format {source.format}, which has no collections: leave it out")
    match source.format:
        case "chroma":
            return chroma.read_chroma(source.path, collection)
        case "ragatouille":
            return ragatouille.read_ragatouille(source.path)
        case "llama-index":
            return llama_index.read_llama_index(source.path)
        case "langchain":
            return read_langchain(source.path)


def _format_of_file(file: Path) -> SourceFormat:
    if file.name in _SIGNS and file.name != ragatouille.IDS:
        return _SIGNS[file.name]
    if file.suffix.lower() in (".sqlite3", ".sqlite", ".db"):
        return "chroma"
    if file.suffix.lower() != ".json":
        raise InvalidInputError(f"{file} is of no known type: {_KNOWN}")
    content = read_json(file, (dict, list), "documents")
    return "llama-index" if isinstance(content, dict) and llama_index.TABLE in content else "langchain"


def _sources_below(folder: Path) -> list[Source]:
    """The sources in a folder: the folder itself, or else folders in it, at any depth."""
    own = [Source(folder, format) for name, format in _SIGNS.items() if (folder / name).is_file()]
    if own:
        return own
    below = (found for name in _SIGNS for found in folder.rglob(name))
    return sorted((Source(file.parent, _SIGNS[file.name]) for file in below), key=lambda source: source.path)


def _only(folder: Path, found: list[Source]) -> Source:
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        listed = ", ".join(f"{source.path} ({source.format})" for source in found[:10])
        raise InvalidInputError(
            f"{folder} holds several sources, give one of them, or its format with --from: {listed}"
        )
    pickles = sorted(file for file in folder.iterdir() if file.name.lower().endswith(_PICKLED))
    if pickles:
        raise InvalidInputError(f"{pickles[0]} cannot be imported: {_EXPORT}")
    if (folder / "plan.json").is_file():
        raise InvalidInputError(
            f"{folder} is an index of colbert-ai, which holds no texts: index the texts that it was made from, with "
            "`muvera index` or MuveraIndex.add"
        )
    raise InvalidInputError(f"{folder} holds nothing that is known: {_KNOWN}")


_KNOWN = (
    f"expected a folder with {ragatouille.TEXTS} and {ragatouille.IDS} (RAGatouille), {chroma.DATABASE} (Chroma) or "
    f"{llama_index.DOCSTORE} (LlamaIndex), or a .json file of LangChain's documents. `muvera index` reads other files"
)

"""Reads collections in BEIR's format, and files of queries."""

from __future__ import annotations

import csv
import gzip
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvera_core.errors import InvalidInputError
from muvera_core.validation import require_path, require_unicode, shown


@dataclass(frozen=True)
class BeirCollection:
    """Passages, queries, and the relevant passages of each query.

    Attributes:
        ids: id of each passage.
        texts: title, if any, and text of each passage.
        titles: title of each passage, or "".
        queries: text of each query, by id. Queries without relevant passages are left out.
        relevance: by query id, the grades of relevant passages, by passage id.
    """

    ids: list[str]
    texts: list[str]
    titles: list[str]
    queries: dict[str, str]
    relevance: dict[str, dict[str, float]]


def read_beir(folder: str | os.PathLike[str]) -> BeirCollection:
    """Read a collection in BEIR's format: corpus.jsonl, queries.jsonl and qrels.tsv, gzipped (.gz) or not.

    Raises:
        InvalidInputError: a file is missing or cannot be read, or a line is not in that format.
    """
    path = require_path("folder", folder)
    ids, texts, titles = [], [], []
    for line, passage in _json_lines(path, "corpus.jsonl"):
        title = "" if passage.get("title") is None else _string(line, passage, "title")
        text = _string(line, passage, "text")
        ids.append(_id(line, passage))
        titles.append(title)
        texts.append(f"{title} {text}" if title else text)
    relevance = _relevance(path, "qrels.tsv")
    queries = {_id(line, query): _string(line, query, "text") for line, query in _json_lines(path, "queries.jsonl")}
    return BeirCollection(ids, texts, titles, {id: text for id, text in queries.items() if id in relevance}, relevance)


def read_queries(
    path: str | os.PathLike[str], relevant: str | os.PathLike[str] | None = None, *, with_unanswered: bool = False
) -> tuple[list[str], list[dict[str, float]] | None]:
    """Read queries, and their relevant documents.

    Args:
        path: a .txt file with one query per line, or a .jsonl file with ``{"_id": ..., "text": ...}`` on each line,
            gzipped (.txt.gz, .jsonl.gz) or not.
        relevant: a file in the format of BEIR's qrels.tsv, gzipped or not. Queries without a relevant document are then
            left out.
        with_unanswered: keep queries whose judgements all have the score 0: nothing answers them.

    Returns:
        The queries, and for each query the grades of its relevant documents by id. The latter is None without
        ``relevant``.

    Raises:
        InvalidInputError: a file is missing or cannot be read, a line is not in that format, or there are no queries.
    """
    file = require_path("path", path)
    judged = None if relevant is None else require_path("relevant", relevant)
    grades = None if judged is None else _relevance(judged.parent, judged.name, with_unanswered=with_unanswered)
    kind = Path(file.stem).suffix if file.suffix == ".gz" else file.suffix
    if kind == ".txt":
        if grades is not None:
            raise InvalidInputError(f"{file} has no question ids, which {judged} refers to: use a .jsonl file")
        queries = [line.strip() for line in _lines(file.parent, file.name) if line.strip()]
        relevance = None
    elif kind == ".jsonl":
        lines = list(_json_lines(file.parent, file.name))
        if grades is not None:
            lines = [(line, query) for line, query in lines if _id(line, query) in grades]
        queries = [_string(line, query, "text") for line, query in lines]
        relevance = None if grades is None else [grades[_id(line, query)] for line, query in lines]
    else:
        raise InvalidInputError(
            f"{file} must end in .txt (one question per line) or .jsonl (BEIR's queries.jsonl), or the same with .gz"
        )
    if not queries:
        raise InvalidInputError(
            f"{file} has no questions" + ("" if judged is None else f" with a relevant document in {judged}")
        )
    return queries, relevance


def _relevance(folder: Path, name: str, *, with_unanswered: bool = False) -> dict[str, dict[str, float]]:
    """By query id, the grades above 0, by passage id."""
    relevance: dict[str, dict[str, float]] = {}
    for query_id, passage_id, score in _judgements(folder, name):
        if with_unanswered:
            relevance.setdefault(query_id, {})
        if score > 0:
            relevance.setdefault(query_id, {})[passage_id] = score
    return relevance


def _judgements(folder: Path, name: str) -> Iterator[tuple[str, str, float]]:
    rows = csv.DictReader(_lines(folder, name), delimiter="\t")
    while True:
        try:
            row = next(rows, None)
            if row is None:
                return
            judgement = row["query-id"], row["corpus-id"], float(row["score"])
            if None in judgement:
                raise ValueError("it is too short")
        except InvalidInputError:  # the file itself cannot be read
            raise
        except (csv.Error, KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"{folder / name}, line {rows.line_num} is not a judgement ({error!r}): "
                "expected the columns query-id, corpus-id and score, with a number for the score"
            ) from error
        yield judgement


def _json_lines(folder: Path, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The object on each line, after a description of the line for messages."""
    for number, line in enumerate(_lines(folder, name), start=1):
        where = f"{folder / name}, line {number}"
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"{where} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise InvalidInputError(f"{where} must hold a JSON object, got {shown(content)}")
        yield where, content


def _string(line: str, content: dict[str, Any], key: str) -> str:
    return require_unicode(f"{line}: {key}", content.get(key))


def _id(line: str, content: dict[str, Any]) -> str:
    id = content.get("_id")
    if isinstance(id, bool) or not isinstance(id, (str, int)):
        raise InvalidInputError(f"{line}: _id must be a string or a whole number, got {shown(id)}")
    return str(id)


def _lines(folder: Path, name: str) -> Iterator[str]:
    """The lines of a file, or if there is none with this name, of its gzipped twin. A name in .gz is a gzipped file."""
    file, is_packed = folder / name, name.endswith(".gz")
    try:
        if not file.is_file() and not is_packed:
            file, is_packed = folder / f"{name}.gz", True
        if file.is_file():
            with gzip.open(file, "rt", encoding="utf-8") if is_packed else file.open(encoding="utf-8") as lines:
                yield from lines
            return
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read: {error}") from error
    missing = f"no {name}" if name.endswith(".gz") else f"neither {name} nor {name}.gz"
    raise InvalidInputError(f"{folder} has {missing}, expected a file in BEIR's format")

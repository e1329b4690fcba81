"""Readers of collections in BEIR's form, and of questions."""

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
    """Passages, questions, and which passages answer them.

    Attributes:
        ids: id of each passage.
        texts: title, if any, and text of each passage.
        titles: title of each passage, or "".
        queries: question by id; only those that have relevant passages.
        relevance: grade of each relevant passage's id, by question id.
    """

    ids: list[str]
    texts: list[str]
    titles: list[str]
    queries: dict[str, str]
    relevance: dict[str, dict[str, float]]


def read_beir(folder: str | os.PathLike[str]) -> BeirCollection:
    """Read a collection in BEIR's form: corpus.jsonl, queries.jsonl and qrels.tsv, gzipped (.gz) or not.

    Raises:
        InvalidInputError: a file is missing or can't be read, or a line isn't in that form.
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


def read_questions(
    path: str | os.PathLike[str], relevant: str | os.PathLike[str] | None = None
) -> tuple[list[str], list[dict[str, float]] | None]:
    """Read questions, and which documents answer them.

    Args:
        path: a .txt file with a question in each line, or a .jsonl file with ``{"_id": ..., "text": ...}`` in each.
        relevant: a file in the form of BEIR's qrels.tsv. Questions without a relevant document are then left out.

    Returns:
        The questions, and for each the grades of relevant documents by id; None without ``relevant``.

    Raises:
        InvalidInputError: a file is missing or can't be read, or a line isn't in that form; there are no questions.
    """
    file = require_path("path", path)
    judged = None if relevant is None else require_path("relevant", relevant)
    grades = None if judged is None else _relevance(judged.parent, judged.name)
    if file.suffix == ".txt":
        if grades is not None:
            raise InvalidInputError(f"{file} gives its questions no ids, which {judged} refers to: use a .jsonl file")
        questions = [line.strip() for line in _lines(file.parent, file.name) if line.strip()]
        relevance = None
    elif file.suffix == ".jsonl":
        lines = list(_json_lines(file.parent, file.name))
        if grades is not None:
            lines = [(line, question) for line, question in lines if _id(line, question) in grades]
        questions = [_string(line, question, "text") for line, question in lines]
        relevance = None if grades is None else [grades[_id(line, question)] for line, question in lines]
    else:
        raise InvalidInputError(f"{file} must end in .txt (a question in each line) or .jsonl (as BEIR's queries)")
    if not questions:
        raise InvalidInputError(f"{file} has no questions" + ("" if judged is None else f" that {judged} knows"))
    return questions, relevance


def _relevance(folder: Path, name: str) -> dict[str, dict[str, float]]:
    """Grades above 0 by passage, by question."""
    relevance: dict[str, dict[str, float]] = {}
    for question, passage_id, score in _judgements(folder, name):
        if score > 0:
            relevance.setdefault(question, {})[passage_id] = score
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
        except InvalidInputError:  # the file itself can't be read
            raise
        except (csv.Error, KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"{folder / name}, line {rows.line_num} is no judgement ({error!r}): "
                "expected the columns query-id, corpus-id and score, which is a number"
            ) from error
        yield judgement


def _json_lines(folder: Path, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's object, with the line's name for messages."""
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
    plain, packed = folder / name, folder / f"{name}.gz"
    try:
        if packed.is_file():
            with gzip.open(packed, "rt", encoding="utf-8") as file:
                yield from file
            return
        if plain.is_file():
            with plain.open(encoding="utf-8") as file:
                yield from file
            return
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{folder / name} can't be read: {error}") from error
    raise InvalidInputError(f"{folder} has neither {name} nor {name}.gz, which is read as in BEIR's form")

"""Measures of retrieval quality, and a reader for collections that they are measured on."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvera_core.errors import InvalidInputError
from muvera_core.validation import require_path, require_unicode, shown


def recall_at_k(found: Sequence[str], expected: Collection[str], k: int = 10) -> float:
    """Share of ``expected`` ids among the first ``k`` found; 1 where nothing is expected."""
    return len(set(found[:k]) & set(expected)) / len(expected) if expected else 1.0


def ndcg_at_k(found: Sequence[str], relevance: Mapping[str, float], k: int = 10) -> float:
    """Normalised discounted cumulative gain with linear gains, as trec_eval and BEIR compute it.

    Args:
        found: ids, best first.
        relevance: grade of each relevant id; ids that aren't in it have grade 0.
        k: how many of the found ids count.

    Returns:
        A value in [0, 1]; 0 where no id is relevant.
    """
    ideal = _discounted_gain(sorted((grade for grade in relevance.values() if grade > 0), reverse=True)[:k])
    return _discounted_gain([relevance.get(id, 0) for id in found[:k]]) / ideal if ideal else 0.0


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
    relevance: dict[str, dict[str, float]] = {}
    for question, passage_id, score in _judgements(path, "qrels.tsv"):
        if score > 0:
            relevance.setdefault(question, {})[passage_id] = score
    queries = {_id(line, query): _string(line, query, "text") for line, query in _json_lines(path, "queries.jsonl")}
    return BeirCollection(ids, texts, titles, {id: text for id, text in queries.items() if id in relevance}, relevance)


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
    raise InvalidInputError(f"{folder} has neither {name} nor {name}.gz: give a folder in BEIR's form")


def _discounted_gain(grades: Sequence[float]) -> float:
    return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(grades))

"""Measures of retrieval quality, and a reader for collections that they are measured on."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvera_core.errors import InvalidInputError


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


def read_beir(folder: Path) -> BeirCollection:
    """Read a collection in BEIR's form: corpus.jsonl, queries.jsonl and qrels.tsv, gzipped (.gz) or not.

    Raises:
        InvalidInputError: a file is missing or a line isn't in that form.
    """
    ids, texts, titles = [], [], []
    for passage in _json_lines(folder, "corpus.jsonl"):
        title = passage.get("title") or ""
        ids.append(str(passage["_id"]))
        titles.append(title)
        texts.append(f"{title} {passage['text']}" if title else passage["text"])
    relevance: dict[str, dict[str, float]] = {}
    for row in csv.DictReader(_lines(folder, "qrels.tsv"), delimiter="\t"):
        if float(row["score"]) > 0:
            relevance.setdefault(row["query-id"], {})[row["corpus-id"]] = float(row["score"])
    queries = {str(q["_id"]): q["text"] for q in _json_lines(folder, "queries.jsonl") if str(q["_id"]) in relevance}
    return BeirCollection(ids, texts, titles, queries, relevance)


def _json_lines(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(folder, name), start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise InvalidInputError(f"{folder / name}, line {number} is not JSON: {error}") from error


def _lines(folder: Path, name: str) -> Iterator[str]:
    plain, packed = folder / name, folder / f"{name}.gz"
    if packed.exists():
        with gzip.open(packed, "rt", encoding="utf-8") as file:
            yield from file
    elif plain.exists():
        with plain.open(encoding="utf-8") as file:
            yield from file
    else:
        raise InvalidInputError(f"{folder} has neither {name} nor {name}.gz: give a folder in BEIR's form")


def _discounted_gain(grades: Sequence[float]) -> float:
    return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(grades))

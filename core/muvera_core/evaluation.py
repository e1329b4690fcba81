"""Measures of retrieval quality, and a reader for collections that they are measured on."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from muvera_core.batches import batched
from muvera_core.errors import InvalidInputError, MissingExtraError
from muvera_core.maxsim.ranking import RANKED_TOGETHER
from muvera_core.stage_clock import StageClock
from muvera_core.token_embeddings import FloatArray
from muvera_core.validation import (
    require_count,
    require_length,
    require_path,
    require_sequence,
    require_texts,
    require_unicode,
    shown,
)

if TYPE_CHECKING:
    from muvera_core.index import MuveraIndex

# Shares of the number of candidates that a curve shows beside it.
_CURVE = (0.125, 0.25, 0.5, 1, 2, 4)


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


def mrr_at_k(found: Sequence[str], relevance: Mapping[str, float], k: int = 10) -> float:
    """Reciprocal rank of the first relevant id among the first ``k`` found; 0 where there is none."""
    ranks = (rank for rank, id in enumerate(found[:k], start=1) if relevance.get(id, 0) > 0)
    return 1 / next(ranks, math.inf)


@dataclass(frozen=True)
class CurvePoint:
    """What a number of candidates gives.

    Attributes:
        n_candidates: how many are reranked.
        recall: share of exact MaxSim's best documents that a search returns.
        milliseconds: median time of a search, without encoding the question.
    """

    n_candidates: int
    recall: float
    milliseconds: float


@dataclass(frozen=True)
class Evaluation:
    """What ``MuveraIndex.evaluate`` measured.

    Attributes:
        k: number of hits.
        n_queries: number of questions.
        n_documents: number of documents.
        n_candidates: how many were reranked.
        recall: share of exact MaxSim's ``k`` best documents that a search returns.
        ndcg: nDCG of the index's hits and of exact MaxSim's; None where it isn't known what is relevant.
        mrr: mean reciprocal rank of the same.
        milliseconds: median and 95th percentile of each stage and of the whole, by name.
        n_bytes: size of each part, on disk or in memory, by name.
        curve: what other numbers of candidates give.
    """

    k: int
    n_queries: int
    n_documents: int
    n_candidates: int
    recall: float
    ndcg: tuple[float, float] | None
    mrr: tuple[float, float] | None
    milliseconds: Mapping[str, tuple[float, float]]
    n_bytes: Mapping[str, int]
    curve: tuple[CurvePoint, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.n_documents} documents, {self.n_queries} questions, {self.n_candidates} candidates",
            f"recall@{self.k} against exact MaxSim: {self.recall:.4f}",
        ]
        for name, value in (("nDCG", self.ndcg), ("MRR", self.mrr)):
            if value is not None:
                lines.append(f"{name}@{self.k}: {value[0]:.4f} (exact MaxSim {value[1]:.4f})")
        lines.append(f"{'':12}{'median':>10}{'95 %':>10}")
        lines += [f"{name:12}{p50:7.2f} ms{p95:7.2f} ms" for name, (p50, p95) in self.milliseconds.items()]
        lines += [f"{name}: {size / 1e6:.1f} MB" for name, size in self.n_bytes.items()]
        lines.append(f"{'candidates':>12}{'recall':>10}{'search':>10}")
        lines += [f"{p.n_candidates:12}{p.recall:10.4f}{p.milliseconds:7.2f} ms" for p in self.curve]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The same, of JSON's types."""
        return asdict(self)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw recall against time to a file, such as ``curve.svg``.

        Raises:
            MissingExtraError: matplotlib isn't installed.
            InvalidInputError: the file can't be written, or is of no kind that can be drawn.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError("drawing needs matplotlib: pip install 'muvera-core[plot]'") from error
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot([p.milliseconds for p in self.curve], [p.recall for p in self.curve], marker="o")
        for point in self.curve:
            axes.annotate(
                str(point.n_candidates), (point.milliseconds, point.recall), xytext=(4, -10), textcoords="offset points"
            )
        axes.set(
            xlabel="search, ms (median)",
            ylabel=f"recall@{self.k} against exact MaxSim",
            title=f"{self.n_documents} documents; numbers are candidates",
        )
        axes.grid(alpha=0.3)
        try:
            figure.savefig(path)
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{path} can't be drawn to: {error}") from error


def evaluate(
    index: MuveraIndex,
    queries: Sequence[str],
    relevant: Sequence[Mapping[str, float] | Collection[str]] | None,
    k: int,
    n_candidates: int | None,
    *,
    show_progress: bool = False,
) -> Evaluation:
    """See ``MuveraIndex.evaluate``."""
    bar = partial(tqdm, unit="question", leave=False, disable=not show_progress)
    questions, k = require_texts("queries", queries), require_count("k", k)
    if not questions or not len(index):
        raise InvalidInputError(f"there are {len(questions)} questions and {len(index)} documents: give some of both")
    grades = None
    if relevant is not None:
        require_length("relevant", require_sequence("relevant", relevant), len(questions))
        grades = [_as_grades(ids) for ids in relevant]
    chosen = index.default_candidates(k) if n_candidates is None else require_count("n_candidates", n_candidates)
    chosen = max(k, chosen)

    encode_clocks, encoded = [], []
    for question in bar(questions, "encoding"):
        start = time.perf_counter()
        encoded.append(index.encoder.encode_queries([question])[0])
        encode_clocks.append(time.perf_counter() - start)
    exact: list[list[str]] = []
    with bar(total=len(encoded), desc="exact") as progress:
        for some in batched(encoded, RANKED_TOGETHER):
            exact += [[hit.id for hit in hits] for hits in index.search_embeddings_batch(some, k, exact=True)]
            progress.update(len(some))
    found, clocks = _search_all(index, encoded, k, chosen)
    stages: dict[str, list[float]] = {"encode": encode_clocks}
    stages |= {name: [clock.seconds[name] for clock in clocks] for name in clocks[0].seconds}
    stages["total"] = [sum(times) for times in zip(*stages.values(), strict=True)]
    curve = []
    for n in bar(sorted({max(k, min(len(index), round(chosen * factor))) for factor in _CURVE}), "curve", unit="point"):
        hits, times = _search_all(index, encoded, k, n)
        curve.append(CurvePoint(n, _mean_recall(hits, exact, k), median(sum(t.seconds.values()) for t in times) * 1000))
    return Evaluation(
        k=k,
        n_queries=len(questions),
        n_documents=len(index),
        n_candidates=chosen,
        recall=_mean_recall(found, exact, k),
        ndcg=None if grades is None else (_mean(ndcg_at_k, found, grades, k), _mean(ndcg_at_k, exact, grades, k)),
        mrr=None if grades is None else (_mean(mrr_at_k, found, grades, k), _mean(mrr_at_k, exact, grades, k)),
        milliseconds={name: _percentiles(times) for name, times in stages.items()},
        n_bytes=index.sizes(),
        curve=tuple(curve),
    )


def _as_grades(ids: Mapping[str, float] | Collection[str]) -> Mapping[str, float]:
    if isinstance(ids, str):
        raise InvalidInputError(f"relevant must hold a collection of ids for each question, got {shown(ids)}")
    return ids if isinstance(ids, Mapping) else dict.fromkeys(ids, 1.0)


def _search_all(
    index: MuveraIndex, encoded: Sequence[FloatArray], k: int, n_candidates: int
) -> tuple[list[list[str]], list[StageClock]]:
    clocks = [StageClock() for _ in encoded]
    both = zip(encoded, clocks, strict=True)
    hits = [[hit.id for hit in index.search_embeddings(tokens, k, n_candidates, clock=clock)] for tokens, clock in both]
    return hits, clocks


def _mean_recall(found: Sequence[Sequence[str]], exact: Sequence[Sequence[str]], k: int) -> float:
    return fmean(recall_at_k(some, best, k) for some, best in zip(found, exact, strict=True))


def _mean(
    measure: Callable[[Sequence[str], Mapping[str, float], int], float],
    found: Sequence[Sequence[str]],
    grades: Sequence[Mapping[str, float]],
    k: int,
) -> float:
    return fmean(measure(some, grade, k) for some, grade in zip(found, grades, strict=True))


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile, in milliseconds."""
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return float(p50), float(p95)


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


def _discounted_gain(grades: Sequence[float]) -> float:
    return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(grades))

"""Learns what scores say about relevance, from judged questions or from parts of the documents themselves.

A part of a text that is encoded by itself is about as similar to its document as a question is to a passage that
answers it, and without its document it is about as similar to the others as a question without an answer is
(docs/benchmarks.md). So an index can be calibrated without a single judged question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from muvera_core.batches import batched
from muvera_core.calibration import CalibrationReport, JudgedRanking, measure
from muvera_core.collection import Collection, Writer
from muvera_core.encoders import TokenEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.hits import Hit
from muvera_core.search import Question, SearchMode, SearchOptions, StageClock, search
from muvera_core.token_embeddings import FloatArray
from muvera_core.tuning.corpus import Corpus
from muvera_core.tuning.made_questions import MadeQuestion, make_questions
from muvera_core.validation import counted

# Fewer documents say nothing about what else a search finds.
MIN_DOCUMENTS = 10
# All questions that were made of documents count as much as so many judged ones: a few judged questions correct the
# map, and many replace it.
_MADE_COUNT_AS = 20
# Hits of each question to learn from, beside those that are relevant, and the most of both.
_OTHERS = 30
_MOST_HITS = 300
# Stored copies of a document differ by less than this in their score.
_SAME = 1e-4
MADE_SEED = 4
_SEARCHED_TOGETHER = 32

# Finds the hits of each question.
Search = Callable[[Sequence[Question], SearchOptions], list[list[Hit]]]


def calibrate(
    collection: Collection,
    writer: Writer,
    encoder: TokenEncoder | None,
    judged: Sequence[tuple[Question, AbstractSet[str]]],
    *,
    n_queries: int,
    show_progress: bool,
    mode: SearchMode = "late",
) -> CalibrationReport:
    """See ``MuveraIndex.calibrate``.

    Args:
        collection: the index.
        writer: the writer of the same index.
        encoder: encodes parts of texts as questions. None takes runs of the documents' stored tokens instead.
        judged: each judged question, and the ids of the documents that are relevant to it.
        n_queries: number of questions to make of documents.
        show_progress: show bars on standard error.
        mode: mode of search to calibrate.
    """
    with collection.locks.writing:
        collection.require_writable()
        corpus = Corpus(collection, collection.snapshot(), encoder)
        if len(corpus.keys) < MIN_DOCUMENTS:
            raise InvalidInputError(
                f"calibrate needs at least {MIN_DOCUMENTS} documents, got {len(corpus.keys)}: add documents first"
            )
        report = measure_relevance(
            lambda questions, options: search(collection, questions, options, StageClock()),
            lambda ids: set(collection.store.keys_of(corpus.snapshot, ids)),
            judged,
            make_questions(corpus, n_queries, MADE_SEED),
            len(corpus.keys),
            mode=mode,
            show_progress=show_progress,
        )
        writer.learn(collection.learned.with_calibration(mode, report.calibration))
        return report


def measure_relevance(
    search: Search,
    present: Callable[[Sequence[str]], AbstractSet[str]],
    judged: Sequence[tuple[Question, AbstractSet[str]]],
    made: Sequence[MadeQuestion],
    n_documents: int,
    *,
    mode: SearchMode,
    show_progress: bool,
) -> CalibrationReport:
    """Measure what scores say about relevance.

    Args:
        search: finds the hits of questions.
        present: tells which of some ids are in the index.
        judged: see ``calibrate``.
        made: questions that were made of documents.
        n_documents: number of documents of the index.
        mode: mode of search to calibrate.
        show_progress: show bars on standard error.

    Raises:
        InvalidInputError: none of the relevant documents is in the index.
    """
    of_judged = _rank_judged(search, present, judged, mode, show_progress)
    if judged and not any(ranking.n_relevant for ranking in of_judged):
        raise InvalidInputError(
            f"the index has no relevant document of {counted(len(judged), 'question')}: give ids that documents were "
            "added with"
        )
    of_made = _rank_made(search, made, show_progress)
    if judged:
        of_made = [replace(ranking, weight=_MADE_COUNT_AS / len(of_made)) for ranking in of_made]
    return measure(mode, of_judged, of_made, n_documents)


def remove_calibration(collection: Collection, writer: Writer) -> bool:
    """Forget all calibrations. Returns whether there were any."""
    with collection.locks.writing:
        collection.require_writable()
        if not collection.learned.calibrations:
            return False
        writer.learn(replace(collection.learned, calibrations={}))
        return True


def _rank_judged(
    search: Search,
    present: Callable[[Sequence[str]], AbstractSet[str]],
    judged: Sequence[tuple[Question, AbstractSet[str]]],
    mode: SearchMode,
    show_progress: bool,
) -> list[JudgedRanking]:
    relevant = [present(sorted(ids)) for _, ids in judged]
    n_hits = min(_MOST_HITS, _OTHERS + max(map(len, relevant), default=0))
    found = _search(search, [question for question, _ in judged], n_hits, mode, show_progress)
    return [
        _judged(hits, [hit.id in ids for hit in hits], question.tokens, len(ids))
        for (question, _), ids, hits in zip(judged, relevant, found, strict=True)
    ]


def _rank_made(search: Search, questions: Sequence[MadeQuestion], show_progress: bool) -> list[JudgedRanking]:
    """Rankings by MaxSim alone: a part of a text has the very words of its document, so BM25 would always find it."""
    found = _search(search, [Question(question.tokens) for question in questions], _OTHERS, "late", show_progress)
    rankings = []
    for question, hits in zip(questions, found, strict=True):
        relevant = _answers(question, hits)
        rankings.append(_judged(hits, relevant, question.tokens, max(1, sum(relevant))))
    return rankings


def _answers(question: MadeQuestion, hits: Sequence[Hit]) -> list[bool]:
    """Which hits answer a question that was made of a document: it and those that hold the same words or tokens."""
    scores = [hit.score for hit in hits if hit.id == question.id]

    def is_copy(hit: Hit) -> bool:
        if question.words is not None:
            return hit.text is not None and question.words in " ".join(hit.text.split())
        return bool(scores) and abs(hit.score - scores[0]) <= _SAME * abs(scores[0])

    return [hit.id == question.id or is_copy(hit) for hit in hits]


def _judged(hits: Sequence[Hit], relevant: Sequence[bool], tokens: FloatArray, n_relevant: int) -> JudgedRanking:
    scores = np.array([hit.score for hit in hits], dtype=np.float32)
    return JudgedRanking(scores, np.array(relevant, dtype=np.bool_), len(tokens), n_relevant)


def _search(
    search: Search, questions: Sequence[Question], k: int, mode: SearchMode, show_progress: bool
) -> list[list[Hit]]:
    options, hits = SearchOptions(k, mode=mode), []
    with tqdm(total=len(questions), desc="searching", unit="query", disable=not show_progress) as bar:
        for some in batched(questions, _SEARCHED_TOGETHER):
            hits += search(some, options)
            bar.update(len(some))
    return hits

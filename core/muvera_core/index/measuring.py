"""The calls that measure an index, and choose its settings by what they measure."""

from __future__ import annotations

from collections.abc import Collection as AnyCollection
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from muvera_core.calibration import Calibration, CalibrationReport
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import InvalidInputError
from muvera_core.evaluation import Evaluation, as_grades, evaluate
from muvera_core.index.keeping import KeepingCalls
from muvera_core.index.reading import ReadingCalls
from muvera_core.index.searching import SearchingCalls
from muvera_core.search import Question, SearchMode
from muvera_core.stage_one import Tuning
from muvera_core.validation import (
    counted,
    require_choice,
    require_count,
    require_encoded,
    require_length,
    require_sequence,
    require_share,
    require_texts,
    shown,
)

# Fewer parts of documents than this say too little.
_LEAST_QUERIES = 20


class MeasuringCalls(SearchingCalls, ReadingCalls, KeepingCalls):
    """Measures an index."""

    def evaluate(
        self,
        queries: Sequence[str],
        relevant: Sequence[Mapping[str, float] | AnyCollection[str]] | None = None,
        *,
        k: int = 10,
        n_candidates: int | None = None,
        mode: SearchMode = "late",
        lexical_weight: float | None = None,
        show_progress: bool = False,
    ) -> Evaluation:
        """Measure what searches find, against exact MaxSim and against labels, and how long they take.

        Args:
            queries: example queries, like those that users ask.
            relevant: for each query the ids of the documents that answer it, or a grade by id. These labels add nDCG,
                MRR, hit rate, precision, recall and average precision.
            k: number of hits.
            n_candidates: number of candidates to rerank; see ``search``.
            mode: what ranks documents; see ``search``. Exact MaxSim is the reference in every mode.
            lexical_weight: BM25's share in mode "hybrid"; see ``search``.
            show_progress: show bars on standard error.

        Raises:
            InvalidInputError: there are no queries or no documents, ``relevant`` is not as long as ``queries``, or
                names documents that the index has in passages.
        """
        self._engine.require_open()
        if relevant is not None:
            queries = require_texts("queries", queries)
            self._require_undivided(_require_grades(relevant, queries))
        return evaluate(
            self,
            queries,
            relevant,
            k,
            n_candidates,
            mode=mode,
            lexical_weight=lexical_weight,
            show_progress=show_progress,
        )

    def optimize(
        self,
        target_recall: float = 0.95,
        queries: Sequence[str] | None = None,
        relevant: Sequence[Mapping[str, float] | AnyCollection[str]] | None = None,
        *,
        k: int = 10,
        n_queries: int = 400,
        max_bytes_per_token: int | None = None,
        show_progress: bool = False,
    ) -> Tuning:
        """Choose stage one for the documents that the index has, and use it from now on.

        Measures with how many candidates the encoding that the index was made with reaches the target. If a learned
        encoding (``LearnedSetEncoder``) can be faster than that, it is learned from the documents and measured, too.
        The fastest one that reaches the target is taken, with the number of candidates that it needs. This takes a
        fraction of the time of encoding the documents' texts.

        If searches rerank all documents anyway, because there are so few, stage one stays as it is.

        Searches go on meanwhile; writes wait. The vectors of all documents must fit in memory. Documents that are added
        later are encoded with the same encoder: optimize again when the index has grown several times over, or is about
        something else. Processes that read the index use the choice after ``refresh``.

        Args:
            target_recall: the share of exact MaxSim's ``k`` best documents that searches should find, on average over
                questions like those measured. The number of candidates is the smallest that reaches it.
            queries: example queries, the more the better. Of 100 or more, half are for measuring and half for fitting.
                None takes parts of the documents instead.
            relevant: for each query the ids of the documents that answer it, or a grade by id. With them, BM25's share
                in hybrid searches is chosen, too: one for all questions, if that finds more than a share that is chosen
                for each question. Then ``measured`` has "hybrid_ndcg", "hybrid_ndcg_by_question" and, if one share was
                chosen, "lexical_weight".
            k: number of hits to tune for.
            n_queries: number of parts of documents to measure with if ``queries`` is None.
            max_bytes_per_token: first rewrite tokens that take more bytes than this in a coarser precision: the best of
                "8bit", "4bit" and "2bit" that fits. All documents change at once, or none. That needs room for the new
                tokens beside the present ones, and cannot be undone: what was rounded away does not come back, so
                tokens are never rewritten with more bytes. Recall is then measured against exact MaxSim of the
                rewritten tokens. None leaves tokens as they are.
            show_progress: show bars on standard error.

        Returns:
            What was chosen and measured. The index's manifest keeps it. If nothing reaches the target, the
            choice is the one that comes nearest. In ``measured``, "recall" is that of the queries measured; that of all
            such queries is within "recall_margin" of it, with a confidence of 95 %. "milliseconds" is the time of a
            search without encoding the text, "milliseconds_untuned" the same before the index was ever optimized.
            With ``max_bytes_per_token`` there are the bytes that a token takes now ("bytes_per_token") and took before.

        Warns:
            NothingToOptimizeWarning: searches rerank all documents anyway. Recall is then not measured.

        Raises:
            InvalidInputError: the target is outside [0, 1], ``queries`` is empty, ``relevant`` does not fit them, there
                are at most ``k`` documents, or no precision takes as few bytes as ``max_bytes_per_token``.
            ReadOnlyIndexError: the index was opened for reading.
            StorageError: there is no room for the learned encoder.
        """
        self._engine.require_open()
        target_recall, k = require_share("target_recall", target_recall), require_count("k", k)
        questions = None if queries is None else self._require_questions(queries)
        judged = None
        if relevant is not None:
            judged = list(zip(questions or (), _require_grades(relevant, queries), strict=True))
            if self._engine.manifest.lexical is None:
                raise InvalidInputError(
                    "relevant chooses BM25's share, but there is no word index: call set_lexical(True)"
                )
            if not self._require_undivided([grades for _, grades in judged]):
                raise InvalidInputError(
                    f"the index has no relevant document of {counted(len(judged), 'question')}: give ids that "
                    "documents were added with"
                )
        tuning = self._engine.optimize(
            None if questions is None else [question.tokens for question in questions],
            None if isinstance(self._encoder, PrecomputedEmbeddings) else self._encoder,
            target_recall=target_recall,
            k=k,
            n_queries=require_count("n_queries", n_queries),
            show_progress=show_progress,
            max_bytes_per_token=max_bytes_per_token,
        )
        if not judged:
            return tuning
        words = self._engine.choose_lexical_weight(judged, k, show_progress=show_progress)
        return replace(tuning, measured=tuning.measured | words)

    def calibrate(
        self,
        queries: Sequence[str] | None = None,
        relevant: Sequence[Mapping[str, float] | AnyCollection[str]] | None = None,
        *,
        mode: Literal["late", "hybrid"] = "late",
        n_queries: int = 300,
        show_progress: bool = False,
    ) -> CalibrationReport:
        """Learn what scores say about relevance, so that ``hit.relevance`` is a probability from now on.

        Then one ``min_score`` fits all questions, and a question without an answer can get no hits at all. The
        probability depends on a document's score and on the best ten scores of the same question, neither on ``k`` nor
        on other hits. It is that of questions half of which have an answer in the index.

        Without judged questions, parts of documents stand in for questions, each with and without its document in the
        index. Judged questions correct that map: the more there are, the more they count.

        The map is stored with the index and committed at once. Searches go on meanwhile; writes wait. Calibrate again
        when the index has grown several times over, is about something else, or after ``optimize`` with
        ``max_bytes_per_token``. Processes that read the index use it after ``refresh``.

        Args:
            queries: questions like those that users ask, also some without an answer. None takes parts of documents.
            relevant: for each query the ids of all documents that answer it, or a grade by id. Nothing for a question
                that the index cannot answer.
            mode: mode of search to calibrate. "hybrid" needs judged questions: a part of a document has its very words,
                as no question has. Until it is calibrated itself, it uses what was learned for "late", since its scores
                are on the same scale. Mode "lexical" cannot be calibrated.
            n_queries: number of parts of documents.
            show_progress: show bars on standard error.

        Returns:
            What was measured on questions that were held out.

        Raises:
            InvalidInputError: only one of ``queries`` and ``relevant`` is given, they are empty or differ in length,
                none of the relevant documents is in the index, ``n_queries`` is below 20, or there are fewer than 10
                documents.
            ReadOnlyIndexError: the index was opened for reading.
        """
        self._engine.require_writable()
        n_queries = require_count("n_queries", n_queries, _LEAST_QUERIES)
        mode = require_choice("mode", mode, ("late", "hybrid"))
        if mode == "hybrid" and queries is None:
            raise InvalidInputError("mode 'hybrid' is calibrated by judged questions: give queries and relevant")
        if (queries is None) != (relevant is None):
            missing, given = ("queries", "relevant") if queries is None else ("relevant", "queries")
            raise InvalidInputError(f"calibrate needs {missing} with {given}: give both, or neither")
        judged: list[tuple[Question, set[str]]] = []
        if queries is not None and relevant is not None:
            questions, grades = self._require_questions(queries), _require_grades(relevant, queries)
            self._require_undivided(grades)
            ids = [{id for id, grade in each.items() if grade > 0} for each in grades]
            judged = list(zip(questions, ids, strict=True))
        return self._engine.calibrate(
            None if isinstance(self._encoder, PrecomputedEmbeddings) else self._encoder,
            judged,
            n_queries=n_queries,
            show_progress=show_progress,
            mode=mode,
        )

    def _require_undivided(self, judged: Sequence[Mapping[str, float]]) -> set[str]:
        """Ids of the relevant documents that the index has.

        Raises:
            InvalidInputError: it has some of them in passages, whose ids differ, so that no hit could match.
        """
        relevant = {id for grades in judged for id, grade in grades.items() if grade > 0}
        present = {document.id for document in self.get(sorted(relevant))}
        ids = relevant - present
        first_passages = self.get(sorted(f"{id}#1" for id in ids))
        divided = [found.metadata["document"] for found in first_passages if found.metadata.get("document") in ids]
        if divided:
            raise InvalidInputError(
                f"{counted(len(divided), 'relevant document')} such as {shown(divided[0])} cannot be found: it was "
                f"split into passages ({shown(first_passages[0].id)}, …). Name the relevant passages, or index "
                "documents whole (--no-split, or Reading(max_tokens=None))"
            )
        return present

    def _require_questions(self, queries: Sequence[str]) -> list[Question]:
        """Example queries with their token vectors. Raises InvalidInputError if there are none."""
        texts = require_texts("queries", queries)
        if not texts:
            raise InvalidInputError("queries is empty: give example queries, or None to use parts of documents")
        encoded = require_encoded(self._encoder.encode_queries(texts), len(texts), self._encoder.dimension)
        return [Question(tokens, text) for tokens, text in zip(encoded, texts, strict=True)]

    def remove_calibration(self) -> bool:
        """Forget what ``calibrate`` learned: ``hit.relevance`` is ``hit.normalized_score`` again.

        Returns:
            Whether there was a calibration.

        Raises:
            ReadOnlyIndexError: the index was opened for reading.
        """
        return self._engine.remove_calibration()

    @property
    def calibration(self) -> Mapping[str, Calibration]:
        """What ``calibrate`` learned, by mode of search. Empty if the index is not calibrated."""
        self._engine.require_open()
        return self._engine.learned.calibrations


def _require_grades(
    relevant: Sequence[Mapping[str, float] | AnyCollection[str]], queries: Sequence[str] | None
) -> list[Mapping[str, float]]:
    """For each query the grades of the relevant documents, by id. Raises InvalidInputError if they do not fit."""
    if queries is None:
        raise InvalidInputError("relevant names the documents that answer queries: give queries, too")
    require_length("relevant", require_sequence("relevant", relevant), len(queries), "query")
    return [as_grades(each) for each in relevant]

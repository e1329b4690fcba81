"""How a search finds its candidates: by which path, among how many documents, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from muvera_core.filters import Condition
from muvera_core.search.fusion import N_NORMALIZED
from muvera_core.search.query_reduction import QueryReduction
from muvera_core.stage_one import HnswCandidates, StageOne

# Candidates that are reranked by all bits, at least, and per hit. Exact MaxSim's best were among them on all
# collections that were measured. They are less surely where tokens are much alike, as those of some models are.
_LEAST_SHORTLISTED = 50
_SHORTLISTED_PER_HIT = 3
# With fewer candidates than this many times the shortlist, the leading bits save nothing.
_WORTH_A_SHORTLIST = 2

SearchPath = Literal["every document", "admitted documents", "flat scan", "graph", "GPU scan", "words"]
SearchMode = Literal["late", "hybrid", "lexical"]
Fusion = Literal["scores", "ranks"]
DiversityMethod = Literal["mmr", "coverage"]


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search.

    Attributes:
        k: number of hits to return.
        n_candidates: number of candidates to rerank. None leaves it to stage one, which knows what its encoding needs.
        condition: the filter; None admits every document.
        exact: rerank all documents that are admitted.
        ids: admits only the documents with these ids; unknown ids are ignored. None admits every document.
        min_score: the smallest relevance of a hit. None keeps all hits.
        mode: what ranks documents: "late" exact MaxSim, "lexical" BM25, "hybrid" both.
        lexical_weight: BM25's share in mode "hybrid". None takes the learned one or, if there is none, one that is
            chosen for each question.
        weighs_each_question: choose BM25's share for each question, whatever was learned.
        fusion: how mode "hybrid" joins the two rankings.
        with_passages: find the part of each hit's text that matched best.
        query_reduction: makes the query shorter for the choice of a shortlist. None leaves it as it is.
    """

    k: int
    n_candidates: int | None = None
    condition: Condition | None = None
    exact: bool = False
    ids: tuple[str, ...] | None = None
    min_score: float | None = None
    mode: SearchMode = "late"
    lexical_weight: float | None = None
    weighs_each_question: bool = False
    fusion: Fusion = "scores"
    with_passages: bool = False
    query_reduction: QueryReduction | None = None

    @property
    def admits_all(self) -> bool:
        """Whether neither a filter nor ids restrict the search."""
        return self.condition is None and self.ids is None


@dataclass(frozen=True)
class SearchPlan:
    """How a search finds the candidates that it reranks by exact MaxSim.

    Attributes:
        path: "every document" and "admitted documents" rerank all that are admitted, without stage one. "flat scan"
            and "GPU scan" compare the query's vector with those of all admitted documents. "graph" finds most of the
            nearest vectors and looks at a part of them. "words" ranks by BM25 alone (mode "lexical").
        n_documents: number of documents of the index.
        n_admitted: number of documents that the filter and the ids admit.
        n_candidates: number of documents to rerank. In mode "hybrid", those that BM25 finds are added to them.
        n_shortlisted: number of candidates that are reranked by all bits of their tokens and all tokens of the query:
            the best by the leading bits, or by the shorter query. None if all candidates are.
        ef: size of the list of best documents that a graph search keeps. None if there is no graph search.
        reason: why this path is taken, in one sentence.
    """

    path: SearchPath
    n_documents: int
    n_admitted: int
    n_candidates: int
    ef: int | None
    reason: str
    n_shortlisted: int | None = None

    @property
    def reranks_all(self) -> bool:
        """Whether all documents that are admitted are reranked, without stage one."""
        return self.path in ("every document", "admitted documents")


def plan_search(
    stage_one: StageOne,
    n_documents: int,
    n_admitted: int,
    options: SearchOptions,
    *,
    gpu_scans: bool,
    has_slices: bool = False,
    least: int = 1,
) -> SearchPlan:
    """Choose how to find the candidates of a search.

    Args:
        stage_one: the index's stage one.
        n_documents: number of documents of the index.
        n_admitted: number of documents that the filter and the ids admit.
        options: the search's options.
        gpu_scans: whether a GPU would scan the vectors of all documents.
        has_slices: whether the CPU reranks, can read the leading bits of tokens alone, and these say enough.
        least: the smallest number of candidates, because the calibration reads so many scores.
    """
    everything: SearchPath = "every document" if options.admits_all else "admitted documents"
    wanted = stage_one.n_candidates(options.k) if options.n_candidates is None else options.n_candidates
    n = max(options.k, wanted, least)

    def shortlisted(n_candidates: int) -> int | None:
        least = max(_LEAST_SHORTLISTED, _SHORTLISTED_PER_HIT * options.k)
        if options.mode == "hybrid":
            least = max(least, N_NORMALIZED)
        is_cheaper = (has_slices or options.query_reduction is not None) and not options.exact
        return least if is_cheaper and n_candidates >= _WORTH_A_SHORTLIST * least else None

    def rerank_all(reason: str) -> SearchPlan:
        return SearchPlan(everything, n_documents, n_admitted, n_admitted, None, reason, shortlisted(n_admitted))

    def search(path: SearchPath, reason: str, ef: int | None = None) -> SearchPlan:
        return SearchPlan(path, n_documents, n_admitted, n, ef, reason, shortlisted(n))

    if options.mode == "lexical":
        return SearchPlan(
            "words", n_documents, n_admitted, 0, None, "BM25 ranks all documents with a word of the query."
        )
    if options.exact:
        return rerank_all(f"exact=True reranks {everything}.")
    if n_admitted <= n:
        documents = "documents" if options.admits_all else "admitted documents"
        return rerank_all(f"A search reranks {n} candidates, and there are no more {documents} than that.")
    if gpu_scans and options.admits_all:
        return search("GPU scan", "The GPU holds all vectors, and was faster than the CPU when both were timed.")
    if not isinstance(stage_one.candidates, HnswCandidates):
        return search("flat scan", "Stage one has no graph, because a scan of so few vectors is fast and finds all.")
    if not options.admits_all:
        return search("flat scan", "Only the vectors of admitted documents are compared, which a graph would pass by.")
    ef = max(stage_one.candidates.ef, n)
    return search("graph", "Every document is admitted, and a graph search looks at a part of them only.", ef)

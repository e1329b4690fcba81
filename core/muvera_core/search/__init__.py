"""One search goes from candidates through exact MaxSim to hits; passages, diversity, explanations, timings, too."""

from __future__ import annotations

from muvera_core.search.by_vector import search_by_vector, without_question
from muvera_core.search.coverage import cover
from muvera_core.search.cross_encoder import CrossEncoder, scoring_function
from muvera_core.search.diversity import HitFeatures, diversify, features_of
from muvera_core.search.explanation import explain, read_document, read_image, similarity_maps
from muvera_core.search.judging import JudgingOptions, candidates_to_judge, judge
from muvera_core.search.modes import Question, Ranked, Scored, rank, score, words_of
from muvera_core.search.neighbors import nearest_documents, neighbors_of, stage_one_vectors
from muvera_core.search.passages import add_passages
from muvera_core.search.pipeline import HitScores, calibration_for, make_plan, scored_hits, scores_of, search
from muvera_core.search.plan import DiversityMethod, Fusion, SearchMode, SearchOptions, SearchPath, SearchPlan
from muvera_core.search.query_reduction import QueryReduction, require_query_reduction
from muvera_core.search.relevance import n_competing, n_ranked
from muvera_core.search.reranking import rerank, sharing_documents, shortlist
from muvera_core.search.score_prediction import Features
from muvera_core.search.stage_clock import StageClock

__all__ = [
    "CrossEncoder",
    "DiversityMethod",
    "Features",
    "Fusion",
    "HitFeatures",
    "HitScores",
    "JudgingOptions",
    "QueryReduction",
    "Question",
    "Ranked",
    "Scored",
    "SearchMode",
    "SearchOptions",
    "SearchPath",
    "SearchPlan",
    "StageClock",
    "add_passages",
    "calibration_for",
    "candidates_to_judge",
    "cover",
    "diversify",
    "explain",
    "features_of",
    "judge",
    "make_plan",
    "n_competing",
    "n_ranked",
    "nearest_documents",
    "neighbors_of",
    "rank",
    "read_document",
    "read_image",
    "require_query_reduction",
    "rerank",
    "score",
    "scored_hits",
    "scores_of",
    "scoring_function",
    "search",
    "search_by_vector",
    "sharing_documents",
    "shortlist",
    "similarity_maps",
    "stage_one_vectors",
    "without_question",
    "words_of",
]

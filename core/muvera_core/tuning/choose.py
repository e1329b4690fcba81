"""Chooses stage one for a corpus: which encoding, how wide, how many candidates, and beyond a scan which graph and ef.

Everything is measured on the corpus itself. Each encoding answers the queries, and its candidates are compared with the
documents that exact MaxSim ranks best. Of the encodings that reach the target, the fastest is taken. Learned encodings
are only made if they can be faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from muvera_core.set_encoders import LearnedSetEncoder, SetEncoder
from muvera_core.stage_one import DEFAULT_GRAPH, FLAT_LIMIT, GraphParameters, HnswCandidates, default_candidates
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings
from muvera_core.tuning.choice import WORTH_A_CHANGE, Choice, best
from muvera_core.tuning.corpus import Corpus
from muvera_core.tuning.encodings import Encoding, first_encoding, learned_encodings, untrained
from muvera_core.tuning.queries import Queries
from muvera_core.tuning.recall import n_candidates_for, recall_at
from muvera_core.tuning.timing import seconds
from muvera_core.tuning.truth import Truth

# Documents of each query that exact MaxSim looks at: the nearest ones by the first encoding, and by a learned one.
_POOL = 1000
_LEARNED_POOL = 500
# The most candidates that are considered.
_MOST = 4000
# A learned encoding needs at least this share of the first encoding's candidates (docs/benchmarks.md).
_LEAST_SHARE = 0.25
# A graph search compares the query with about so many documents.
_VISITED = 4000
# Values of ef to try, as multiples of the number of candidates, or of the default ef if that is larger.
_EF_FACTORS = (1.0, 2.0, 4.0)
# Graphs to try, until one of them reaches the target.
GRAPHS = (DEFAULT_GRAPH, GraphParameters(32, 400))
# Queries and documents that times are measured with.
_TIMED_QUERIES = 30
_TIMED_DOCUMENTS = 200


def choose(
    corpus: Corpus,
    first_encoder: SetEncoder,
    queries: Queries,
    examples: Callable[[], Sequence[FloatArray]],
    *,
    target_recall: float,
    k: int,
    show_progress: bool = False,
) -> tuple[Choice, float]:
    """Measure the first encoding and learned ones of several widths, and take the fastest that reaches the target.

    Args:
        corpus: the documents.
        first_encoder: makes the encoding that the index has without tuning.
        queries: the queries to measure with.
        examples: gives token vectors of other queries, to fit learned encodings to.
        target_recall: the share of exact MaxSim's ``k`` best documents that must be among the candidates, on average
            over the queries. If no encoding reaches it, the one that comes nearest is taken.
        k: number of hits to tune for.
        show_progress: show bars on standard error.

    Returns:
        The choice, and the seconds that a search takes without tuning.
    """
    tokens, truth = queries.tokens, Truth(corpus, queries, k)
    rerank_seconds = _seconds_per_candidate(corpus, tokens)

    def measured(encoding: Encoding) -> Choice:
        choice = _measured(corpus, encoding, queries, truth, target_recall, k)
        spent = _stage_one_seconds(encoding, tokens, choice.n_candidates) + choice.n_candidates * rerank_seconds
        return replace(choice, seconds=spent)

    first = first_encoding(corpus, first_encoder, show_progress)
    truth.look_at(first.nearest(tokens, max(_POOL, k + 1)), show_progress)
    encodings, chosen = [first], measured(first)
    if chosen.recall.mean < target_recall or _could_be_faster(chosen, corpus, tokens, k, rerank_seconds):
        encodings += learned_encodings(corpus, examples(), show_progress)
        truth.look_at(encodings[-1].nearest(tokens, max(_LEARNED_POOL, k + 1)), show_progress)
        choices = [measured(encoding) for encoding in encodings]
        chosen = best(choices, target_recall)
    n_untuned = min(default_candidates(k), len(corpus.keys))
    untuned = _stage_one_seconds(first, tokens, n_untuned) + n_untuned * rerank_seconds
    if len(corpus.keys) > FLAT_LIMIT:
        (encoding,) = (one for one in encodings if one.encoder is chosen.encoder)
        chosen = _in_graph(chosen, encoding, queries, truth.best(), target_recall, show_progress)
    return chosen, untuned


def measure_encoder(
    corpus: Corpus, encoder: SetEncoder, queries: Queries, *, target_recall: float, k: int, show_progress: bool
) -> Choice:
    """The stage one of an encoder that was chosen elsewhere, with what it needs to reach the target here.

    Args:
        corpus: the documents, more than ``k``.
        encoder: makes their vectors.
        queries: the queries to measure with.
        target_recall: see ``choose``.
        k: see ``choose``.
        show_progress: show bars on standard error.
    """
    encoding = Encoding.of(encoder, corpus.keys, corpus.encode_all(encoder, show_progress))
    truth = Truth(corpus, queries, k)
    truth.look_at(encoding.nearest(queries.tokens, max(_POOL, k + 1)), show_progress)
    choice = _measured(corpus, encoding, queries, truth, target_recall, k)
    if len(corpus.keys) > FLAT_LIMIT:
        choice = _in_graph(choice, encoding, queries, truth.best(), target_recall, show_progress)
    return choice


def _measured(corpus: Corpus, encoding: Encoding, queries: Queries, truth: Truth, target: float, k: int) -> Choice:
    """An encoding whose vectors are scanned, with the candidates that it needs. Its time is not measured."""
    ranks = _ranks(encoding.nearest(queries.tokens, _MOST), queries, truth.best())
    n = n_candidates_for(target, ranks, min(_MOST, len(corpus.keys)))
    recall = recall_at(n, ranks)
    n = _for_users(n, encoding.encoder, queries, k)
    return Choice(encoding.encoder, encoding.scanned, n, HnswCandidates.DEFAULT_EF, DEFAULT_GRAPH, recall, math.nan)


def _could_be_faster(
    first: Choice, corpus: Corpus, queries: Sequence[FloatArray], k: int, rerank_seconds: float
) -> bool:
    """Whether a search with a learned encoding may take less time. This is found out without learning one."""
    least = max(k, _LEAST_SHARE * first.n_candidates) * rerank_seconds
    return least + _encoding_seconds(untrained(corpus.dimension), queries) < first.seconds * (1 - WORTH_A_CHANGE)


def _for_users(n: int, encoder: SetEncoder, queries: Queries, k: int) -> int:
    """The candidates that questions of users need, if ``queries`` need ``n``."""
    return max(k, n if isinstance(encoder, LearnedSetEncoder) else math.ceil(n / queries.excess))


def _ranks(found: Sequence[IntArray], queries: Queries, exact: IntArray) -> IntArray:
    """Places of exact MaxSim's best documents among those found, or the number of these if they are not there.

    The document that a query was made of has no place.
    """
    ranks = np.empty(exact.shape, dtype=np.int64)
    for i, (keys, wanted) in enumerate(zip(found, exact, strict=True)):
        others = keys if queries.made_of is None else keys[keys != queries.made_of[i]]
        places = wanted[:, None] == others
        ranks[i] = np.where(places.any(axis=1), places.argmax(axis=1), len(keys))
    return ranks


def _in_graph(
    choice: Choice, encoding: Encoding, queries: Queries, exact: IntArray, target: float, show_progress: bool
) -> Choice:
    """The choice with its vectors in a graph, with the ef and the number of candidates that reach the target there."""
    tried: list[Choice] = []
    vectors = encoding.encoder.encode_queries(TokenEmbeddings.from_list(list(queries.tokens)))
    for graph in tqdm(GRAPHS, "graphs", disable=not show_progress):
        candidates = HnswCandidates.from_vectors(encoding.keys, encoding.vectors, parameters=graph)
        least = max(HnswCandidates.DEFAULT_EF, choice.n_candidates)
        for factor in _EF_FACTORS:
            candidates.ef = int(least * factor)
            # Searching for the whole list shows how many of it are needed.
            ranks = _ranks(candidates.search_many(vectors, candidates.ef), queries, exact)
            n = n_candidates_for(target, ranks, candidates.ef)
            recall = recall_at(n, ranks)
            n = _for_users(n, encoding.encoder, queries, exact.shape[1])
            tried.append(
                replace(choice, candidates=candidates, n_candidates=n, ef=candidates.ef, graph=graph, recall=recall)
            )
            if recall.mean >= target:
                return tried[-1]
    return max(tried, key=lambda one: one.recall.mean)


def _stage_one_seconds(encoding: Encoding, queries: Sequence[FloatArray], n: int) -> float:
    """The time to encode a query and to find ``n`` candidates. If a graph will be used, its time is estimated."""
    some = queries[:_TIMED_QUERIES]
    vectors = encoding.encoder.encode_queries(TokenEmbeddings.from_list(list(some)))
    search = seconds(lambda vector: encoding.scanned.search(vector, n), vectors)
    if len(encoding.keys) > FLAT_LIMIT:
        search *= min(1.0, _VISITED / len(encoding.keys))
    return _encoding_seconds(encoding.encoder, queries) + search


def _encoding_seconds(encoder: SetEncoder, queries: Sequence[FloatArray]) -> float:
    return seconds(encoder.encode_queries, [TokenEmbeddings.from_list([query]) for query in queries[:_TIMED_QUERIES]])


def _seconds_per_candidate(corpus: Corpus, queries: Sequence[FloatArray]) -> float:
    sample = np.sort(np.random.default_rng(0).permutation(corpus.keys)[:_TIMED_DOCUMENTS])
    return seconds(lambda query: corpus.rank([query], sample), queries[:_TIMED_QUERIES]) / len(sample)

"""Chooses stage one for a corpus: which encoding, how wide, how many candidates, which graph, which ef.

Everything is measured on the corpus itself. Each choice answers the queries, and its candidates are compared with exact
MaxSim over all documents. Of the choices that reach the target, the one with the fastest search is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from muvera_core.set_encoders import LearnedSetEncoder, LearnedSetEncoderConfig, SetEncoder
from muvera_core.stage_one import (
    DEFAULT_GRAPH,
    FLAT_LIMIT,
    Candidates,
    FlatCandidates,
    GraphParameters,
    HnswCandidates,
)
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, unit_length
from muvera_core.tuning.choice import Choice, best, with_better_graph
from muvera_core.tuning.corpus import Corpus
from muvera_core.tuning.queries import Queries
from muvera_core.tuning.recall import Recall, n_candidates_for, recall_at

# Widths of the learned encodings to try: 0.5, 1 and 2 kB a document.
WIDTHS = (128, 256, 512)
# Values of ef to try, as multiples of the number of candidates, or of the default ef if that is larger.
_EF_FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0)
# Graphs to try besides the default one.
OTHER_GRAPHS = (GraphParameters(32, 200), GraphParameters(16, 400), GraphParameters(32, 400))
_T = TypeVar("_T")


def choose(
    corpus: Corpus,
    first_encoder: SetEncoder,
    queries: Queries,
    examples: Sequence[FloatArray],
    *,
    target_recall: float,
    k: int,
    show_progress: bool = False,
) -> Choice:
    """Measure the first encoding and learned ones of several widths, and take the fastest that reaches the target.

    With enough documents for a graph, all encodings are measured in a default graph. Only the encoding that is taken is
    also measured in other graphs, because building graphs is slow.

    Args:
        corpus: the documents.
        first_encoder: makes the encoding that the index has without tuning.
        queries: the queries to measure with.
        examples: token vectors of other queries, to fit learned encodings to.
        target_recall: the share of exact MaxSim's ``k`` best documents that must be among the candidates, on average
            over all queries of this kind, with a confidence of 95 %. If no choice reaches it, the one that comes
            nearest is taken.
        k: number of hits to tune for.
        show_progress: show bars on standard error.
    """
    tokens = queries.tokens
    exact = corpus.exact(tokens, k, show_progress, queries.made_of)
    rerank_seconds = _seconds_per_candidate(corpus, tokens)

    def measured(encoder: SetEncoder, vectors: FloatArray, graph: GraphParameters) -> Choice:
        query_vectors = encoder.encode_queries(TokenEmbeddings.from_list(tokens))
        candidates, ef, n_candidates, recall = _build_candidates(
            corpus.keys, vectors, query_vectors, exact, target_recall, graph
        )
        seconds = _median_seconds(partial(candidates.search, k=n_candidates), query_vectors)
        seconds += _median_seconds(encoder.encode_queries, [TokenEmbeddings.from_list([query]) for query in tokens])
        seconds += n_candidates * rerank_seconds
        return Choice(encoder, candidates, n_candidates, ef, graph, recall, seconds)

    encodings = _encodings(corpus, first_encoder, examples, show_progress)
    chosen = best([measured(encoder, vectors, DEFAULT_GRAPH) for encoder, vectors in encodings], target_recall)
    if isinstance(chosen.candidates, FlatCandidates):
        return chosen
    vectors = chosen.candidates.vectors(corpus.keys)
    graphs = tqdm(OTHER_GRAPHS, "graphs", disable=not show_progress)
    return with_better_graph(chosen, [measured(chosen.encoder, vectors, graph) for graph in graphs], target_recall)


def _encodings(
    corpus: Corpus, first_encoder: SetEncoder, examples: Sequence[FloatArray], show_progress: bool
) -> Iterator[tuple[SetEncoder, FloatArray]]:
    """Encoders, each with the vectors of all documents, of unit length."""
    yield first_encoder, corpus.encode_all(first_encoder, show_progress)
    sample = corpus.sample(LearnedSetEncoderConfig.num_sample_tokens)
    widths = [width for width in WIDTHS if width < len(sample.vectors) // 2]
    if widths and len(sample) > 1:
        config = LearnedSetEncoderConfig(dimension=sample.dimension, output_dimension=widths[-1])
        widest = LearnedSetEncoder.fit(sample, config, TokenEmbeddings.from_list(examples))
        components = corpus.encode_all(widest, show_progress, scale=False)
        for width in widths:
            encoder = widest.truncated(width)
            yield encoder, unit_length(_truncated(components, width, float(encoder.matrices.length)))


def _truncated(vectors: FloatArray, width: int, length: float) -> FloatArray:
    """Narrower encodings made of wider ones. The last coordinate gives all of them the same length."""
    short = np.empty((len(vectors), width), dtype=np.float32)
    short[:, :-1] = vectors[:, : width - 1]
    short[:, -1] = np.sqrt(np.maximum(0, length**2 - np.einsum("nd,nd->n", short[:, :-1], short[:, :-1])))
    return short


def _scan_ranks(keys: IntArray, vectors: FloatArray, queries: FloatArray, exact: IntArray) -> IntArray:
    """The number of documents that a scan puts before each of exact MaxSim's best, shape (queries, k)."""
    ranks = np.empty(exact.shape, dtype=np.int64)
    for row, query, wanted in zip(ranks, queries, exact, strict=True):
        scores = vectors @ query
        row[:] = (scores > scores[np.searchsorted(keys, wanted)][:, None]).sum(axis=1)
    return ranks


def _graph_ranks(candidates: Candidates, queries: FloatArray, exact: IntArray, n: int) -> IntArray:
    """Places of exact MaxSim's best documents among ``n`` candidates, or ``n`` if they are not there."""
    ranks = np.empty(exact.shape, dtype=np.int64)
    for row, query, wanted in zip(ranks, queries, exact, strict=True):
        places = wanted[:, None] == candidates.search(query, n)
        row[:] = np.where(places.any(axis=1), places.argmax(axis=1), n)
    return ranks


def _build_candidates(
    keys: IntArray, vectors: FloatArray, queries: FloatArray, exact: IntArray, target: float, graph: GraphParameters
) -> tuple[Candidates, int, int, Recall]:
    """A flat scan or a graph of the vectors, with its ef, the number of candidates, and the recall that it reaches."""
    k = exact.shape[1]
    ranks = _scan_ranks(keys, vectors, queries, exact)
    n = max(k, n_candidates_for(target, ranks, len(keys)))
    if len(keys) <= FLAT_LIMIT:
        return FlatCandidates.from_vectors(keys, vectors), HnswCandidates.DEFAULT_EF, n, recall_at(n, ranks)
    candidates = HnswCandidates.from_vectors(keys, vectors, parameters=graph)
    # Searching for the whole list shows how many of it are needed.
    least = max(HnswCandidates.DEFAULT_EF, n)
    for factor in _EF_FACTORS:
        candidates.ef = int(least * factor)
        n = max(k, n_candidates_for(target, _graph_ranks(candidates, queries, exact, candidates.ef), candidates.ef))
        recall = recall_at(n, _graph_ranks(candidates, queries, exact, n))
        if recall.assured >= target:
            break
    return candidates, candidates.ef, n, recall


def _seconds_per_candidate(corpus: Corpus, queries: Sequence[FloatArray]) -> float:
    sample = np.sort(np.random.default_rng(0).permutation(corpus.keys)[:200])
    return _median_seconds(lambda query: corpus.rank([query], sample), queries) / len(sample)


def _median_seconds(call: Callable[[_T], object], arguments: Iterable[_T]) -> float:
    """The median time of a call."""
    times = []
    for argument in arguments:
        start = time.perf_counter()
        call(argument)
        times.append(time.perf_counter() - start)
    return median(times)

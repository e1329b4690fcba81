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

# Widths of the learned encodings to try: 0.5, 1 and 2 kB a document.
WIDTHS = (128, 256, 512)
# Values of ef to try, as multiples of the number of candidates, or of the default ef if that is larger.
_EF_FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0)
# Users will ask other queries. The choice may miss only 1 - _MARGIN of what the target allows to be missed.
_MARGIN = 0.4
# The share of the allowed misses that the graph may cause. The encoding may cause the rest.
_GRAPH_SHARE = 0.5
# Graphs to try besides the default one.
OTHER_GRAPHS = (GraphParameters(32, 200), GraphParameters(16, 400), GraphParameters(32, 400))
_T = TypeVar("_T")


def choose(
    corpus: Corpus,
    first_encoder: SetEncoder,
    queries: Sequence[FloatArray],
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
        queries: token vectors of the queries to measure with.
        examples: token vectors of other queries, to fit learned encodings to.
        target_recall: the share of exact MaxSim's ``k`` best documents that must be among the candidates. If no choice
            reaches it, the one that comes nearest is taken.
        k: number of hits to tune for.
        show_progress: show bars on standard error.
    """
    aim = target_recall + (1 - target_recall) * _MARGIN
    exact = corpus.exact(queries, k, show_progress)
    rerank_seconds = _seconds_per_candidate(corpus, queries)

    def measured(encoder: SetEncoder, vectors: FloatArray, graph: GraphParameters) -> Choice:
        query_vectors = encoder.encode_queries(TokenEmbeddings.from_list(queries))
        n_candidates = _n_candidates_for(_scan_target(corpus, aim), corpus.keys, vectors, query_vectors, exact)
        candidates, ef, n_candidates, recall = _build_candidates(
            corpus.keys, vectors, query_vectors, exact, n_candidates, aim, graph
        )
        seconds = _median_seconds(partial(candidates.search, k=n_candidates), query_vectors)
        seconds += _median_seconds(encoder.encode_queries, [TokenEmbeddings.from_list([query]) for query in queries])
        seconds += n_candidates * rerank_seconds
        return Choice(encoder, candidates, n_candidates, ef, graph, recall, seconds)

    encodings = _encodings(corpus, first_encoder, examples, show_progress)
    chosen = best([measured(encoder, vectors, DEFAULT_GRAPH) for encoder, vectors in encodings], aim)
    if isinstance(chosen.candidates, FlatCandidates):
        return chosen
    vectors = chosen.candidates.vectors(corpus.keys)
    graphs = tqdm(OTHER_GRAPHS, "graphs", disable=not show_progress)
    return with_better_graph(chosen, [measured(chosen.encoder, vectors, graph) for graph in graphs], aim)


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


def _scan_target(corpus: Corpus, target: float) -> float:
    """The recall that a scan must reach. A graph misses some of what a scan finds, so its scan must find more."""
    return target if len(corpus.keys) <= FLAT_LIMIT else target + (1 - target) * (1 - _GRAPH_SHARE)


def _n_candidates_for(
    target: float, keys: IntArray, vectors: FloatArray, queries: FloatArray, exact: Sequence[IntArray]
) -> int:
    """The number of candidates with which a scan finds the share ``target`` of exact MaxSim's best documents."""
    ranks = []
    for query, wanted in zip(queries, exact, strict=True):
        scores = vectors @ query
        ranks.append((scores > scores[np.searchsorted(keys, wanted)][:, None]).sum(axis=1))
    in_order = np.sort(np.concatenate(ranks))
    return int(in_order[max(0, int(np.ceil(target * len(in_order))) - 1)]) + 1


def _build_candidates(
    keys: IntArray,
    vectors: FloatArray,
    queries: FloatArray,
    exact: Sequence[IntArray],
    n_candidates: int,
    target: float,
    graph: GraphParameters,
) -> tuple[Candidates, int, int, float]:
    """A flat scan or a graph of the vectors, with its ef, its number of candidates, and the recall that it reaches."""
    candidates: Candidates
    n_candidates = max(n_candidates, *map(len, exact))
    if len(keys) <= FLAT_LIMIT:
        candidates = FlatCandidates.from_vectors(keys, vectors)
        return candidates, HnswCandidates.DEFAULT_EF, n_candidates, _recall(candidates, queries, exact, n_candidates)
    candidates = HnswCandidates.from_vectors(keys, vectors, parameters=graph)
    recall = 0.0
    for factor in _EF_FACTORS:
        candidates.ef = int(max(HnswCandidates.DEFAULT_EF, n_candidates) * factor)
        recall = _recall(candidates, queries, exact, n_candidates)
        if recall >= target:
            break
    return candidates, candidates.ef, n_candidates, recall


def _recall(candidates: Candidates, queries: FloatArray, exact: Sequence[IntArray], n: int) -> float:
    found = [np.isin(wanted, candidates.search(query, n)) for query, wanted in zip(queries, exact, strict=True)]
    return float(np.concatenate(found).mean())


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

"""Choosing stage one for a corpus: which encoding, how wide, how many candidates, which graph, which ef.

Everything is measured on the corpus itself: questions are asked of every choice, and what it finds is compared with
exact MaxSim over all documents. Of the choices that reach the target the one with the cheapest search is taken.
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

# Widths of learned encodings that are tried: 0.5, 1 and 2 kB a document.
WIDTHS = (128, 256, 512)
_EF_FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0)
# Other questions will be asked: of what the target leaves to be missed, the share that is kept for them.
_MARGIN = 0.4
# Of what the target leaves to be missed, the share that a graph may miss of what a scan finds.
_GRAPH_SHARE = 0.5
# Graphs that are tried beside the default one.
OTHER_GRAPHS = (GraphParameters(32, 200), GraphParameters(16, 400), GraphParameters(32, 400))
_T = TypeVar("_T")


def choose(
    corpus: Corpus,
    present: SetEncoder,
    queries: Sequence[FloatArray],
    examples: Sequence[FloatArray],
    *,
    target_recall: float,
    k: int,
    show_progress: bool = False,
) -> Choice:
    """Measure the present encoding and learned ones of several widths, and take the cheapest that reaches the target.

    Where there are enough documents for graphs, all encodings are measured in the default one, and only the one that
    is taken also in others: making graphs is what takes long.

    Args:
        corpus: the documents.
        present: the encoding that the index has without tuning.
        queries: token vectors of the questions that are asked.
        examples: of other questions, to which learned encodings are fitted.
        target_recall: share of the ``k`` best documents, by exact MaxSim, to be among the candidates. Where no choice
            reaches it, the one that comes nearest is taken.
        k: number of hits that are tuned for.
        show_progress: show bars on standard error.
    """
    aim = target_recall + (1 - target_recall) * _MARGIN
    exact = corpus.exact(queries, k, show_progress)
    rerank_seconds = _seconds_per_candidate(corpus, queries)

    def measured(encoder: SetEncoder, vectors: FloatArray, graph: GraphParameters) -> Choice:
        asked = encoder.encode_queries(TokenEmbeddings.from_list(queries))
        n_candidates = _needed(corpus.keys, vectors, asked, exact, _scan_target(corpus, aim))
        held, ef, n_candidates, recall = _held(corpus.keys, vectors, asked, exact, n_candidates, aim, graph)
        seconds = _median_seconds(partial(held.search, k=n_candidates), asked)
        seconds += _median_seconds(encoder.encode_queries, [TokenEmbeddings.from_list([query]) for query in queries])
        seconds += n_candidates * rerank_seconds
        return Choice(encoder, held, n_candidates, ef, graph, recall, seconds)

    encodings = _encodings(corpus, present, examples, show_progress)
    chosen = best([measured(encoder, vectors, DEFAULT_GRAPH) for encoder, vectors in encodings], aim)
    if isinstance(chosen.candidates, FlatCandidates):
        return chosen
    vectors = chosen.candidates.vectors(corpus.keys)
    graphs = tqdm(OTHER_GRAPHS, "graphs", disable=not show_progress)
    return with_better_graph(chosen, [measured(chosen.encoder, vectors, graph) for graph in graphs], aim)


def _encodings(
    corpus: Corpus, present: SetEncoder, examples: Sequence[FloatArray], show_progress: bool
) -> Iterator[tuple[SetEncoder, FloatArray]]:
    """Encoders with their vectors of all documents, of unit length, one after the other."""
    yield present, corpus.encode_all(present, show_progress)
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
    """Encodings of fewer dimensions from those of more: the last coordinate evens out the lengths."""
    short = np.empty((len(vectors), width), dtype=np.float32)
    short[:, :-1] = vectors[:, : width - 1]
    short[:, -1] = np.sqrt(np.maximum(0, length**2 - np.einsum("nd,nd->n", short[:, :-1], short[:, :-1])))
    return short


def _scan_target(corpus: Corpus, target: float) -> float:
    """A graph misses some of what a scan finds, so the scan has to find more."""
    return target if len(corpus.keys) <= FLAT_LIMIT else target + (1 - target) * (1 - _GRAPH_SHARE)


def _needed(keys: IntArray, vectors: FloatArray, queries: FloatArray, exact: Sequence[IntArray], target: float) -> int:
    """How many documents of highest inner product hold ``target`` of the exact best ones."""
    ranks = []
    for query, wanted in zip(queries, exact, strict=True):
        scores = vectors @ query
        ranks.append((scores > scores[np.searchsorted(keys, wanted)][:, None]).sum(axis=1))
    in_order = np.sort(np.concatenate(ranks))
    return int(in_order[max(0, int(np.ceil(target * len(in_order))) - 1)]) + 1


def _held(
    keys: IntArray,
    vectors: FloatArray,
    queries: FloatArray,
    exact: Sequence[IntArray],
    n_candidates: int,
    target: float,
    graph: GraphParameters,
) -> tuple[Candidates, int, int, float]:
    """The holder for so many documents, with the ef, number of candidates and recall that it has in the end."""
    held: Candidates
    n_candidates = max(n_candidates, *map(len, exact))
    if len(keys) <= FLAT_LIMIT:
        held = FlatCandidates.holding(keys, vectors)
        return held, HnswCandidates.DEFAULT_EF, n_candidates, _recall(held, queries, exact, n_candidates)
    held = HnswCandidates.holding(keys, vectors, parameters=graph)
    recall = 0.0
    for factor in _EF_FACTORS:
        held.ef = int(max(HnswCandidates.DEFAULT_EF, n_candidates) * factor)
        recall = _recall(held, queries, exact, n_candidates)
        if recall >= target:
            break
    return held, held.ef, n_candidates, recall


def _recall(held: Candidates, queries: FloatArray, exact: Sequence[IntArray], n_candidates: int) -> float:
    found = [np.isin(wanted, held.search(query, n_candidates)) for query, wanted in zip(queries, exact, strict=True)]
    return float(np.concatenate(found).mean())


def _seconds_per_candidate(corpus: Corpus, queries: Sequence[FloatArray]) -> float:
    some = np.sort(np.random.default_rng(0).permutation(corpus.keys)[:200])
    return _median_seconds(lambda query: corpus.rank([query], some), queries) / len(some)


def _median_seconds(call: Callable[[_T], object], arguments: Iterable[_T]) -> float:
    """What a call takes, in the middle of several."""
    times = []
    for argument in arguments:
        start = time.perf_counter()
        call(argument)
        times.append(time.perf_counter() - start)
    return median(times)

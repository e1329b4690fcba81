"""Choosing stage one for a corpus: which encoding, how wide, how many candidates, which graph, how wide a beam.

Everything is measured on the corpus itself: questions are asked of every choice, and what it finds is compared with
exact MaxSim over all documents. Of the choices that reach the target the one with the cheapest search is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from muvera_core.batches import batched
from muvera_core.candidates import Candidates, FlatCandidates, HnswCandidates
from muvera_core.errors import InvalidInputError
from muvera_core.fde import EncodeDocuments, SetEncoder, encode_on_host, unit_length
from muvera_core.graph_parameters import DEFAULT_GRAPH, GraphParameters
from muvera_core.lemur import LearnedSetEncoder, LearnedSetEncoderConfig
from muvera_core.maxsim.ranking import RANKED_TOGETHER, Ranking
from muvera_core.pseudo_queries import part_of_text, run_of_tokens
from muvera_core.stage_one import FLAT_LIMIT
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings

# Widths of learned encodings that are tried: 0.5, 1 and 2 kB a document.
WIDTHS = (128, 256, 512)
# Documents that are encoded together.
_ENCODED_TOGETHER = 256
# Stand-ins that the encoding is fitted to: more find little more. They are drawn so many at a time.
_PSEUDO_QUERIES = 1500
_DRAWN_TOGETHER = 64
# Of so many questions that are given, half are fitted to, too.
_MIN_TO_SPLIT = 100
_BEAMS = (1.0, 1.5, 2.0, 3.0, 4.0)
# Other questions will be asked: of what the target leaves to be missed, the share that is kept for them.
_MARGIN = 0.4
# Of what the target leaves to be missed, the share that a graph may miss of what a scan finds.
_GRAPH_SHARE = 0.5
# Graphs that are tried beside the default one.
OTHER_GRAPHS = (GraphParameters(32, 200), GraphParameters(16, 400), GraphParameters(32, 400))
# They take longer to make, and more memory: of the time of a search, the share that one has to save.
_WORTH_ANOTHER_GRAPH = 0.1
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Corpus:
    """What tuning sees of an index.

    Attributes:
        keys: of all documents, ascending.
        embeddings: gives the token embeddings of documents.
        texts: gives the texts of documents; None of those that have none.
        rerank: ranks documents for each of several queries' tokens: the best keys and scores of each, best first.
        encode_queries: encodes texts as questions; None where only token embeddings are known.
        encode_documents: has a set encoder encode documents.
    """

    keys: IntArray
    embeddings: Callable[[IntArray], TokenEmbeddings]
    texts: Callable[[IntArray], Sequence[str | None]]
    rerank: Callable[[Sequence[FloatArray], IntArray], list[Ranking]]
    encode_queries: Callable[[Sequence[str]], TokenEmbeddings] | None
    encode_documents: EncodeDocuments = encode_on_host


@dataclass(frozen=True, eq=False)
class Choice:
    """A stage one that reaches the target.

    Attributes:
        encoder: makes the vectors.
        candidates: holds those of all documents.
        n_candidates: how many to rerank.
        beam: of a graph.
        graph: what it was made with.
        recall: share of the exact best documents among the candidates.
        seconds: a search takes for candidates and rerank.
    """

    encoder: SetEncoder
    candidates: Candidates
    n_candidates: int
    beam: int
    graph: GraphParameters
    recall: float
    seconds: float


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
    exact = _exact(corpus, queries, k, show_progress)
    rerank_seconds = _seconds_per_candidate(corpus, queries)

    def measured(encoder: SetEncoder, vectors: FloatArray, graph: GraphParameters) -> Choice:
        asked = encoder.encode_queries(TokenEmbeddings.from_list(queries))
        n_candidates = _needed(corpus.keys, vectors, asked, exact, _scan_target(corpus, aim))
        held, beam, n_candidates, recall = _held(corpus.keys, vectors, asked, exact, n_candidates, aim, graph)
        seconds = _median_seconds(partial(held.search, k=n_candidates), asked)
        seconds += _median_seconds(encoder.encode_queries, [TokenEmbeddings.from_list([query]) for query in queries])
        seconds += n_candidates * rerank_seconds
        return Choice(encoder, held, n_candidates, beam, graph, recall, seconds)

    encodings = _encodings(corpus, present, examples, show_progress)
    chosen = best([measured(encoder, vectors, DEFAULT_GRAPH) for encoder, vectors in encodings], aim)
    if isinstance(chosen.candidates, FlatCandidates):
        return chosen
    vectors = chosen.candidates.vectors(corpus.keys)
    graphs = tqdm(OTHER_GRAPHS, "graphs", disable=not show_progress)
    return with_better_graph(chosen, [measured(chosen.encoder, vectors, graph) for graph in graphs], aim)


def best(choices: Sequence[Choice], aim: float) -> Choice:
    """The cheapest choice that reaches ``aim``; where none does, the one that comes nearest."""
    enough = [choice for choice in choices if choice.recall >= aim]
    return min(enough, key=lambda choice: choice.seconds) if enough else max(choices, key=lambda choice: choice.recall)


def with_better_graph(chosen: Choice, others: Sequence[Choice], aim: float) -> Choice:
    """``chosen``, or the same encoding in another graph, where that reaches ``aim`` sooner or comes nearer to it."""
    other = best(others, aim)
    if chosen.recall < aim:
        return best([chosen, other], aim)
    saves = other.seconds <= chosen.seconds * (1 - _WORTH_ANOTHER_GRAPH)
    return other if other.recall >= aim and saves else chosen


def questions(
    corpus: Corpus, given: Sequence[FloatArray] | None, n: int
) -> tuple[Sequence[FloatArray], Sequence[FloatArray]]:
    """Token vectors of the questions to fit to, and of those to measure with.

    Args:
        corpus: the documents.
        given: questions that will be asked, if some are known.
        n: how many to measure with where none are given.
    """
    for_fit = pseudo_queries(corpus, _PSEUDO_QUERIES, seed=2)
    if given is None:
        return for_fit, pseudo_queries(corpus, n, seed=1)
    if len(given) < _MIN_TO_SPLIT:
        return for_fit, given
    return [*given[1::2], *for_fit], given[::2]


def pseudo_queries(corpus: Corpus, n: int, seed: int) -> list[FloatArray]:
    """Token vectors that stand in for questions: of parts of documents' texts, or runs of documents' tokens.

    A part that is encoded on its own has vectors more like a question's, whose tokens have little beside them.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.choice(corpus.keys, size=n)
    queries: list[FloatArray] = []
    for start in range(0, n, _DRAWN_TOGETHER):
        keys, which = np.unique(drawn[start : start + _DRAWN_TOGETHER], return_inverse=True)
        documents = corpus.embeddings(keys)
        some = [run_of_tokens(documents[i], rng) for i in which]
        if corpus.encode_queries is not None:
            texts = corpus.texts(keys)
            parts = {
                place: part_of_text(text, len(some[place]) / len(documents[i]), rng)
                for place, i in enumerate(which)
                if (text := texts[i])
            }
            for place, tokens in zip(parts, corpus.encode_queries(list(parts.values())), strict=True):
                some[place] = tokens
        queries += some
    return queries


def _encodings(
    corpus: Corpus, present: SetEncoder, examples: Sequence[FloatArray], show_progress: bool
) -> Iterator[tuple[SetEncoder, FloatArray]]:
    """Encoders with their vectors of all documents, of unit length, one after the other."""
    yield present, _encode_all(corpus, present, show_progress)
    sample = _sample(corpus, LearnedSetEncoderConfig.num_sample_tokens)
    widths = [width for width in WIDTHS if width < len(sample.vectors) // 2]
    if widths and len(sample) > 1:
        config = LearnedSetEncoderConfig(dimension=sample.dimension, output_dimension=widths[-1])
        widest = LearnedSetEncoder.fit(sample, config, TokenEmbeddings.from_list(examples))
        components = _encode_all(corpus, widest, show_progress, scale=False)
        for width in widths:
            encoder = widest.truncated(width)
            yield encoder, unit_length(_truncated(components, width, float(encoder.matrices.length)))


def _truncated(vectors: FloatArray, width: int, length: float) -> FloatArray:
    """Encodings of fewer dimensions from those of more: the last coordinate evens out the lengths."""
    short = np.empty((len(vectors), width), dtype=np.float32)
    short[:, :-1] = vectors[:, : width - 1]
    short[:, -1] = np.sqrt(np.maximum(0, length**2 - np.einsum("nd,nd->n", short[:, :-1], short[:, :-1])))
    return short


def _sample(corpus: Corpus, n_tokens: int) -> TokenEmbeddings:
    """Documents drawn until they have so many tokens."""
    keys = np.random.default_rng(0).permutation(corpus.keys)
    parts: list[TokenEmbeddings] = []
    for start in range(0, len(keys), _ENCODED_TOGETHER):
        if sum(len(part.vectors) for part in parts) >= n_tokens:
            break
        parts.append(corpus.embeddings(np.sort(keys[start : start + _ENCODED_TOGETHER])))
    return TokenEmbeddings.concatenate(parts)


def _encode_all(corpus: Corpus, encoder: SetEncoder, show_progress: bool, *, scale: bool = True) -> FloatArray:
    vectors = np.empty((len(corpus.keys), encoder.output_dimension), dtype=np.float32)
    with tqdm(total=len(vectors), desc=encoder.fingerprint[:16], unit="doc", disable=not show_progress) as bar:
        for start in range(0, len(vectors), _ENCODED_TOGETHER):
            keys = corpus.keys[start : start + _ENCODED_TOGETHER]
            encoded = corpus.encode_documents(encoder, corpus.embeddings(keys))
            vectors[start : start + len(keys)] = unit_length(encoded) if scale else encoded
            bar.update(len(keys))
    return vectors


def _exact(corpus: Corpus, queries: Sequence[FloatArray], k: int, show_progress: bool) -> list[IntArray]:
    """Keys of the ``k`` documents of highest MaxSim for each query."""
    best: list[IntArray] = []
    with tqdm(total=len(queries), desc="exact", disable=not show_progress) as bar:
        for some in batched(queries, RANKED_TOGETHER):
            best += [keys[:k] for keys, _ in corpus.rerank(some, corpus.keys)]
            bar.update(len(some))
    return best


def _scan_target(corpus: Corpus, target: float) -> float:
    """A graph misses some of what a scan finds, so the scan has to find more."""
    return target if len(corpus.keys) <= FLAT_LIMIT else target + (1 - target) * (1 - _GRAPH_SHARE)


def _needed(keys: IntArray, vectors: FloatArray, queries: FloatArray, exact: Sequence[IntArray], target: float) -> int:
    """How many documents of highest inner product hold ``target`` of the exact best ones."""
    ranks = []
    for query, best in zip(queries, exact, strict=True):
        scores = vectors @ query
        ranks.append((scores > scores[np.searchsorted(keys, best)][:, None]).sum(axis=1))
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
    """The holder for so many documents, with the beam, number of candidates and recall that it has in the end."""
    held: Candidates
    n_candidates = max(n_candidates, max(len(best) for best in exact))
    if len(keys) <= FLAT_LIMIT:
        held = FlatCandidates.holding(keys, vectors)
        return held, HnswCandidates.BEAM, n_candidates, _recall(held, queries, exact, n_candidates)
    held = HnswCandidates.holding(keys, vectors, parameters=graph)
    recall = 0.0
    for wider in _BEAMS:
        held.beam = int(max(HnswCandidates.BEAM, n_candidates) * wider)
        recall = _recall(held, queries, exact, n_candidates)
        if recall >= target:
            break
    return held, held.beam, n_candidates, recall


def _recall(held: Candidates, queries: FloatArray, exact: Sequence[IntArray], n_candidates: int) -> float:
    found = [np.isin(best, held.search(query, n_candidates)) for query, best in zip(queries, exact, strict=True)]
    return float(np.concatenate(found).mean())


def _seconds_per_candidate(corpus: Corpus, queries: Sequence[FloatArray]) -> float:
    some = np.sort(np.random.default_rng(0).permutation(corpus.keys)[:200])
    return _median_seconds(lambda query: corpus.rerank([query], some), queries) / len(some)


def _median_seconds(call: Callable[[_T], object], arguments: Iterable[_T]) -> float:
    """What a call takes, in the middle of several."""
    times = []
    for argument in arguments:
        start = time.perf_counter()
        call(argument)
        times.append(time.perf_counter() - start)
    return median(times)


def require_enough(corpus: Corpus, k: int) -> None:
    """Raise InvalidInputError where there is nothing to tune."""
    if len(corpus.keys) <= k:
        raise InvalidInputError(
            f"there are {len(corpus.keys)} documents, and {k} of them are returned anyway: add documents first"
        )

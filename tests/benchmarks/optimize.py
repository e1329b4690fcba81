"""Measures how near ``optimize`` comes to its target on questions that it has not seen, and how long it takes.

usage: python tests/benchmarks/optimize.py FOLDER... [--targets 0.9 0.95 0.97 0.99] [--cache FOLDER] [--questions 300]
       [--others N] [--shuffle] [--without-texts] [--evaluate]

For each collection, ``optimize`` runs once, for the second target, with pseudo-queries. Printed are its CPU time and
that of encoding the passages (an estimate from 512 of them), what it chose, and for each target and encoding the number
of candidates that it would take, with the recall of a scan for real questions: the share of exact MaxSim's top 10 over
all passages. With ``--without-texts`` the pseudo-queries are runs of stored tokens, as for an index whose tokens were
made elsewhere. The passages keep the order of the file, which is often sorted by topic; ``--shuffle`` puts them in
random order. ``--evaluate`` also evaluates the index before and after, and after ``optimize`` with half of the
questions, which is slow.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from embedded import Embedded, collection_parser, embed, seconds_to_encode
from machine import describe_machine

from muvera_core import Evaluation, MuveraIndex, Tuning
from muvera_core.encoders import BundledEncoder
from muvera_core.token_embeddings import IntArray
from muvera_core.tuning import choose, optimize
from muvera_core.tuning.corpus import Corpus
from muvera_core.tuning.encodings import Encoding, first_encoding, learned_encodings
from muvera_core.tuning.queries import Queries, queries_to_fit, queries_to_measure
from muvera_core.tuning.recall import n_candidates_for, recall_at
from muvera_core.tuning.truth import Truth

_K = 10
_N_QUERIES = 400


def main() -> None:
    parser = collection_parser(__doc__)
    parser.add_argument("more", type=Path, nargs="*", help="further collections")
    parser.add_argument("--targets", type=float, nargs="+", default=[0.9, 0.95, 0.97, 0.99])
    parser.add_argument("--shuffle", action="store_true", help="put the passages in random order")
    parser.add_argument("--without-texts", action="store_true", help="make pseudo-queries of stored tokens")
    parser.add_argument("--evaluate", action="store_true", help="also evaluate the index before and after")
    arguments = parser.parse_args()
    print(describe_machine())
    for folder in (arguments.folder, *arguments.more):
        measure(embed(folder, arguments.cache, arguments.questions, others=arguments.others), arguments)


def measure(collection: Embedded, arguments: argparse.Namespace) -> None:
    """Print all about one collection."""
    order = list(range(len(collection.texts)))
    if arguments.shuffle:
        random.Random(0).shuffle(order)
    encoding = cpu_seconds_to_encode(collection)
    with tempfile.TemporaryDirectory() as temporary, MuveraIndex.create(Path(temporary) / "index") as index:
        index.add_embeddings(
            [collection.documents[i] for i in order], [str(i) for i in order], [collection.texts[i] for i in order]
        )
        print(f"\n{collection.name}: {len(order)} passages, {len(collection.queries)} questions", flush=True)
        if arguments.evaluate:
            report(index, collection, "default index")
        start = time.process_time()
        tuning = run_optimize(index, arguments)
        spent = time.process_time() - start
        print(tuning.measured)
        print(f"optimize: {spent:.0f} s of CPU; to encode the passages: {encoding:.0f}; share {spent / encoding:.2f}")
        print_targets(index, collection, arguments)
        if arguments.evaluate:
            report(index, collection, "optimized with pseudo-queries")
            index.optimize(arguments.targets[1], collection.query_texts[::2])
            report(index, collection, "optimized with half of the questions, evaluated with the others", 1, 2)


def run_optimize(index: MuveraIndex, arguments: argparse.Namespace) -> Tuning:
    """``index.optimize``; without texts, as for vectors that were made elsewhere."""
    return optimize(
        index.engine.collection,
        index.engine.writer,
        None,
        None if arguments.without_texts else BundledEncoder(),
        target_recall=arguments.targets[1],
        k=_K,
        n_queries=_N_QUERIES,
        show_progress=False,
    )


def print_targets(index: MuveraIndex, collection: Embedded, arguments: argparse.Namespace) -> None:
    """A table of the candidates that ``optimize`` takes for each target and encoding, and what real questions find."""
    held = index.engine.collection
    corpus = Corpus(held, held.snapshot(), None if arguments.without_texts else BundledEncoder())
    first = first_encoding(corpus, held.stage_one_source.first_encoder(held.manifest.fde), False)
    encodings = [first, *learned_encodings(corpus, queries_to_fit(corpus, None), False)]
    stand_ins, asked = queries_to_measure(corpus, None, _N_QUERIES), Queries(list(collection.queries))
    estimated = truth_in_pools(corpus, stand_ins, encodings)
    exact = Truth(corpus, asked, _K)
    exact.look_at([corpus.keys] * len(asked.tokens), False)
    print("| dimensions |" + "".join(f" {target}: candidates | recall |" for target in arguments.targets))
    for encoding in encodings:
        ranks = choose._ranks(encoding.nearest(stand_ins.tokens, len(corpus.keys)), stand_ins, estimated)
        ranks_of_users = choose._ranks(encoding.nearest(asked.tokens, len(corpus.keys)), asked, exact.best())
        row = f"| {encoding.encoder.output_dimension:,} |"
        for target in arguments.targets:
            n = n_candidates_for(target, ranks, len(corpus.keys))
            n = choose._for_users(n, encoding.encoder, stand_ins, _K)
            row += f" {n} | {recall_at(n, ranks_of_users).mean:.3f} |"
        print(row, flush=True)
    print(f"(a recall of {arguments.targets[1]} is within {margin(ranks_of_users, n):.3f} for these questions)")


def truth_in_pools(corpus: Corpus, queries: Queries, encodings: Sequence[Encoding]) -> IntArray:
    """What ``choose`` takes for exact MaxSim's best documents."""
    truth = Truth(corpus, queries, _K)
    truth.look_at(encodings[0].nearest(queries.tokens, choose._POOL), False)
    truth.look_at(encodings[-1].nearest(queries.tokens, choose._LEARNED_POOL), False)
    return truth.best()


def margin(ranks: IntArray, n: int) -> float:
    """Half of the 95 % interval of a recall."""
    return recall_at(n, ranks).margin


def cpu_seconds_to_encode(collection: Embedded) -> float:
    """``seconds_to_encode`` in seconds of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    estimate = seconds_to_encode(collection)
    return estimate * (time.process_time() - cpu) / (time.perf_counter() - wall)


def report(index: MuveraIndex, collection: Embedded, title: str, first: int = 0, step: int = 1) -> None:
    answers = [{str(number): grade for number, grade in grades.items()} for grades in collection.relevance]
    evaluation: Evaluation = index.evaluate(collection.query_texts[first::step], answers[first::step])
    print(f"--- {title}\n{evaluation}", flush=True)


if __name__ == "__main__":
    main()

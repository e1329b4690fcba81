"""Measures what ``optimize`` gains on a collection, with queries that it has not seen.

usage: python tests/benchmarks/optimize.py FOLDER [--cache FOLDER] [--questions 300] [--target-recall 0.97]
       [--others N] [--shuffle] [--with-questions | --aims 0.9 0.95 0.97 [--without-texts]]

Evaluates a default index with real queries, and again after ``optimize`` with pseudo-queries. ``--with-questions`` also
evaluates it with half of the queries after ``optimize`` with the other half.

``--aims`` instead prints, for several targets and each encoding that ``optimize`` compares, the number of candidates
that it takes and the recall of a scan with real queries. With ``--without-texts`` the pseudo-queries are runs of stored
tokens, as for an index whose tokens were made elsewhere. The passages keep the order of the file, which is often sorted
by topic; ``--shuffle`` puts them in random order.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from embedded import Embedded, collection_parser, embed, seconds_to_encode
from machine import describe_machine

from muvera_core import Evaluation, MuveraIndex, TokenEmbeddings
from muvera_core.encoders import BundledEncoder
from muvera_core.tuning import choose
from muvera_core.tuning.corpus import Corpus
from muvera_core.tuning.queries import queries_to_fit_and_measure
from muvera_core.tuning.recall import n_candidates_for, recall_at

_K = 10


def main() -> None:
    parser = collection_parser(__doc__)
    parser.add_argument("--target-recall", type=float, default=0.97)
    parser.add_argument("--aims", type=float, nargs="+", help="only show how near these targets are come to")
    parser.add_argument("--shuffle", action="store_true", help="put the passages in random order")
    parser.add_argument("--without-texts", action="store_true", help="make pseudo-queries of stored tokens")
    parser.add_argument("--with-questions", action="store_true", help="also optimize with half of the queries")
    arguments = parser.parse_args()
    collection = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    queries = collection.query_texts
    answers = [{str(number): grade for number, grade in grades.items()} for grades in collection.relevance]
    order = list(range(len(collection.texts)))
    if arguments.shuffle:
        random.Random(0).shuffle(order)

    print(describe_machine())
    with tempfile.TemporaryDirectory() as temporary, MuveraIndex.create(Path(temporary) / "index") as index:
        index.add_embeddings(
            [collection.documents[i] for i in order], [str(i) for i in order], [collection.texts[i] for i in order]
        )
        if arguments.aims:
            print_aims(index, collection, arguments.aims, has_texts=not arguments.without_texts)
            return
        encoding = seconds_to_encode(collection)
        print(f"{collection.name}: {len(collection.texts)} passages, {encoding:.0f} s to encode")
        report("default index", index.evaluate(queries, answers))
        start = time.perf_counter()
        print(index.optimize(arguments.target_recall, show_progress=True).measured)
        seconds = time.perf_counter() - start
        print(f"optimize: {seconds:.0f} s, {seconds / encoding:.0%} of the time to encode the passages")
        report("optimized with pseudo-queries", index.evaluate(queries, answers))
        if arguments.with_questions:
            print(index.optimize(arguments.target_recall, queries[::2], show_progress=True).measured)
            report(
                "optimized with half of the queries, evaluated with the others",
                index.evaluate(queries[1::2], answers[1::2]),
            )


def print_aims(index: MuveraIndex, collection: Embedded, aims: list[float], *, has_texts: bool) -> None:
    """A table of what ``optimize`` would choose for each encoding, and what real queries then find."""
    held = index._collection
    corpus = Corpus(held, held.snapshot(), BundledEncoder() if has_texts else None)
    to_fit, stand_ins = queries_to_fit_and_measure(corpus, None, 200)
    asked = list(collection.queries)
    wanted = corpus.exact(stand_ins.tokens, _K, True, stand_ins.made_of)
    wanted_by_users = corpus.exact(asked, _K, True)
    first = held.stage_one_source.first_encoder(held.manifest.fde)
    print(f"{collection.name}: {len(corpus.keys)} passages, {len(asked)} questions")
    print("| dimensions |" + "".join(f" {aim}: candidates | recall |" for aim in aims))
    for encoder, vectors in choose._encodings(corpus, first, to_fit, True):
        ranks, ranks_of_users = (
            choose._scan_ranks(
                corpus.keys, vectors, encoder.encode_queries(TokenEmbeddings.from_list(list(tokens))), exact
            )
            for tokens, exact in ((stand_ins.tokens, wanted), (asked, wanted_by_users))
        )
        row = f"| {encoder.output_dimension:,} |"
        for aim in aims:
            n = n_candidates_for(aim, ranks, len(corpus.keys))
            row += f" {n} | {recall_at(n, ranks_of_users).mean:.3f} |"
        print(row, flush=True)


def report(title: str, evaluation: Evaluation) -> None:
    print(f"--- {title}\n{evaluation}", flush=True)


if __name__ == "__main__":
    main()

"""Chooses, fits and adopts a stage one for the documents that an index has."""

from __future__ import annotations

import time
from collections.abc import Sequence

from muvera_core.collection import Collection, Writer
from muvera_core.encoders import TokenEncoder
from muvera_core.stage_one import Tuning
from muvera_core.token_embeddings import FloatArray
from muvera_core.tuning.choose import choose
from muvera_core.tuning.corpus import Corpus
from muvera_core.tuning.queries import queries_to_fit_and_measure


def optimize(
    collection: Collection,
    writer: Writer,
    queries: Sequence[FloatArray] | None,
    encoder: TokenEncoder | None,
    *,
    target_recall: float,
    k: int,
    n_queries: int,
    show_progress: bool,
) -> Tuning:
    """See ``MuveraIndex.optimize``.

    Args:
        collection: the index.
        writer: the writer of the same index.
        queries: token vectors of the user's queries. None takes pseudo-queries.
        encoder: encodes parts of texts as pseudo-queries. None takes runs of the documents' stored tokens instead.
        target_recall: see ``MuveraIndex.optimize``.
        k: see ``MuveraIndex.optimize``.
        n_queries: see ``MuveraIndex.optimize``.
        show_progress: show bars on standard error.
    """
    with collection.locks.writing:
        collection.require_writable()
        corpus = Corpus(collection, collection.snapshot(), encoder)
        corpus.require_enough(k)
        start = time.perf_counter()
        first_encoder = collection.stage_one_source.first_encoder(collection.manifest.fde)
        to_fit, to_measure = queries_to_fit_and_measure(corpus, queries, n_queries)
        choice = choose(
            corpus, first_encoder, to_measure, to_fit, target_recall=target_recall, k=k, show_progress=show_progress
        )
        tuning = choice.as_tuning(k, target_recall, len(to_measure.tokens), time.perf_counter() - start)
        return writer.adopt(choice.encoder, choice.candidates, tuning)

"""Chooses, fits and adopts a stage one for the documents that an index has."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from muvera_core.collection import Collection, Writer
from muvera_core.encoders import TokenEncoder, warn
from muvera_core.errors import NothingToOptimizeWarning
from muvera_core.stage_one import Tuning
from muvera_core.token_embeddings import FloatArray
from muvera_core.tuning.choose import choose
from muvera_core.tuning.corpus import Corpus
from muvera_core.tuning.queries import queries_to_fit, queries_to_measure
from muvera_core.tuning.token_bytes import bytes_per_token, precision_for


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
    max_bytes_per_token: int | None = None,
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
        max_bytes_per_token: see ``MuveraIndex.optimize``.
    """
    with collection.locks.writing:
        collection.require_writable()
        Corpus(collection, collection.snapshot(), encoder).require_enough(k)
        bytes_before = bytes_per_token(collection.store.codec)
        if max_bytes_per_token is not None:
            narrow_tokens(collection, writer, max_bytes_per_token)
        measured = {}
        if max_bytes_per_token is not None:
            measured = {
                "bytes_per_token": bytes_per_token(collection.store.codec),
                "bytes_per_token_before": bytes_before,
            }
        corpus = Corpus(collection, collection.snapshot(), encoder)
        if _reranks_all(corpus, k):
            return _nothing_to_gain(corpus, k, measured | {"target_recall": target_recall})
        start = time.perf_counter()
        first_encoder = collection.stage_one_source.first_encoder(collection.manifest.fde)
        to_measure = queries_to_measure(corpus, queries, n_queries)
        choice, untuned = choose(
            corpus,
            first_encoder,
            to_measure,
            partial(queries_to_fit, corpus, queries),
            target_recall=target_recall,
            k=k,
            show_progress=show_progress,
        )
        spent = time.perf_counter() - start
        tuning = choice.as_tuning(k, target_recall, len(to_measure.tokens), spent, untuned)
        tuning = replace(tuning, measured=tuning.measured | measured)
        return writer.adopt(choice.encoder, choice.candidates, tuning)


def _reranks_all(corpus: Corpus, k: int) -> bool:
    """Whether a search reranks all documents, because there are so few."""
    return len(corpus.keys) <= corpus.collection.stage_one.n_candidates(k)


def _nothing_to_gain(corpus: Corpus, k: int, measured: dict[str, Any]) -> Tuning:
    """Warn that there is nothing to gain. Stage one stays as it is, so that the index may grow."""
    n, n_candidates = len(corpus.keys), corpus.collection.stage_one.n_candidates(k)
    warn(
        f"optimize leaves stage one as it is: a search reranks up to {n_candidates} documents, and the index has no "
        f"more than that ({n}). Optimize when there are several times as many",
        NothingToOptimizeWarning,
    )
    present = corpus.collection.manifest.tuning
    measured = measured | {"n_documents": n, "n_queries": 0}
    if present is not None:
        return replace(present, measured=present.measured | measured)
    return Tuning(None, None, None, k, n_candidates, corpus.collection.stage_one.ef, measured)


def narrow_tokens(collection: Collection, writer: Writer, max_bytes: int) -> None:
    """Rewrite the tokens if they take more bytes than ``max_bytes`` each. Raises InvalidInputError if none fits."""
    with collection.locks.writing:
        collection.require_writable()
        precision = precision_for(collection.store.codec, max_bytes)
        if precision != collection.store.codec.precision:
            writer.store_tokens_as(precision)

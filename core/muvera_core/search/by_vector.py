"""Searches that have no token vectors to compare: by a stage-one vector alone, or by a filter alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from muvera_core.collection import Collection
from muvera_core.errors import DimensionMismatchError, InvalidInputError
from muvera_core.hits import Hit
from muvera_core.search.moment import take_moment
from muvera_core.search.pipeline import HitScores, scored_hits
from muvera_core.search.plan import SearchOptions
from muvera_core.set_encoders import FixedDimensionalEncoder
from muvera_core.storage import Snapshot, StaleError, StoredDocument
from muvera_core.token_embeddings import FloatArray, TokenEmbeddings, unit_length

_USE_TEXT = "search by the query's text, or by its token vectors"


def search_by_vector(collection: Collection, vector: npt.ArrayLike, options: SearchOptions) -> list[Hit]:
    """See ``MuveraIndex.search_by_vector``."""
    query = _require_own_vector(collection, vector)

    def read(snapshot: Snapshot) -> tuple[list[StoredDocument], FloatArray]:
        moment = take_moment(collection, snapshot, options)
        (keys,) = moment.search(query[None], options.k)
        with collection.locks.state:
            if collection.snapshot() is not snapshot or collection.stage_one is not moment.stage_one:
                raise StaleError
            vectors = moment.stage_one.candidates.vectors(keys)
        cosines: FloatArray = vectors @ query
        return collection.store.documents(snapshot, keys), cosines

    documents, cosines = collection.read_with_retry(read)
    shares = np.clip(cosines, 0, 1).tolist()
    return scored_hits(documents, [HitScores(*each) for each in zip(cosines.tolist(), shares, shares, strict=True)])


def without_question(collection: Collection, options: SearchOptions) -> list[Hit]:
    """The hits of a query without a visible character: what a filter or ids admit, with a score of 0, else nothing."""
    if options.admits_all:
        return []

    def read(snapshot: Snapshot) -> list[StoredDocument]:
        admitted = collection.store.matching(snapshot, options.condition, options.ids)
        return collection.store.documents(snapshot, admitted[: options.k])

    documents = collection.read_with_retry(read)
    return scored_hits(documents, [HitScores(0.0, 0.0, 0.0)] * len(documents))


def _require_own_vector(collection: Collection, vector: npt.ArrayLike) -> FloatArray:
    """The vector, of unit length, if it can be a query's encoding by the index's first encoding."""
    encoder = collection.stage_one.encoder
    if not isinstance(encoder, FixedDimensionalEncoder) or encoder.config.center:
        reason = "its FDE is centred" if isinstance(encoder, FixedDimensionalEncoder) else "it was optimized"
        raise InvalidInputError(f"this index cannot be searched by one vector, because {reason}: {_USE_TEXT}")
    given = TokenEmbeddings.from_list([np.atleast_2d(vector)]).vectors
    if given.shape != (1, encoder.output_dimension):
        raise DimensionMismatchError(
            f"got a vector of shape {np.shape(vector)}, but this index compares FDEs of {encoder.output_dimension} "
            f"numbers: {_USE_TEXT}"
        )
    unit: FloatArray = unit_length(given)[0]
    return unit

"""What one search works on: a snapshot, stage one, and the documents that are admitted, all of the same moment."""

from __future__ import annotations

from dataclasses import dataclass

from muvera_core.collection import Collection
from muvera_core.search.plan import SearchOptions, SearchPlan, plan_search
from muvera_core.search.relevance import least_candidates
from muvera_core.search.reranking import has_leading_bits
from muvera_core.stage_one import StageOne, StageOneView
from muvera_core.storage import Snapshot, StaleError
from muvera_core.token_embeddings import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Moment:
    """The state of an index that a search works on, without holding a lock.

    Attributes:
        snapshot: the documents.
        stage_one: the stage one of the same moment.
        view: what it had published.
        admitted: keys of the documents that the search may return, int64, ascending.
        admits_all: whether these are all documents.
        plan: how the search finds its candidates.
    """

    snapshot: Snapshot
    stage_one: StageOne
    view: StageOneView
    admitted: IntArray
    admits_all: bool
    plan: SearchPlan

    def search(self, vectors: FloatArray, n: int) -> list[IntArray]:
        """For each stage-one vector the keys of the ``n`` admitted documents of highest inner product, best first.

        Raises:
            StaleError: a write has changed the graph meanwhile.
        """
        found = self.view.search_many(vectors, n, None if self.admits_all else self.admitted)
        if found is None:
            raise StaleError
        return found


def take_moment(collection: Collection, snapshot: Snapshot, options: SearchOptions) -> Moment:
    """Find out what is admitted in a snapshot, and take stage one together with it.

    Raises:
        StaleError: a write has replaced the snapshot.
    """
    admitted = collection.store.matching(snapshot, options.condition, options.ids)
    with collection.locks.state:
        if collection.snapshot() is not snapshot:
            raise StaleError
        stage_one, gpu = collection.stage_one, collection.accelerator
        view = stage_one.view()
        gpu_scans = gpu is not None and gpu.scans(stage_one, snapshot)
        codec = snapshot.tokens.codec
        has_slices = gpu is None and has_leading_bits(codec)
        least = least_candidates(collection.learned.calibration_of(options.mode))
        plan = plan_search(
            stage_one,
            len(snapshot),
            len(admitted),
            options,
            gpu_scans=gpu_scans,
            has_slices=has_slices,
            least=least,
        )
    return Moment(snapshot, stage_one, view, admitted, options.admits_all, plan)

"""A stage one that was measured, and the choice among several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from muvera_core.set_encoders import LearnedSetEncoder, SetEncoder
from muvera_core.stage_one import Candidates, GraphParameters, HnswCandidates, Tuning
from muvera_core.tuning.recall import Recall

# Another stage one must save at least this share of a search's time: less is within the error of measuring it, and
# another encoding has to be kept and loaded.
WORTH_A_CHANGE = 0.1


@dataclass(frozen=True, eq=False)
class Choice:
    """A stage one and its measurements.

    Attributes:
        encoder: makes the vectors.
        candidates: holds the vectors of all documents.
        n_candidates: number of candidates to rerank.
        ef: size of the list that a graph search keeps.
        graph: parameters of the graph.
        recall: the share of exact MaxSim's best documents among the candidates.
        seconds: time of a search, without encoding the text.
    """

    encoder: SetEncoder
    candidates: Candidates
    n_candidates: int
    ef: int
    graph: GraphParameters
    recall: Recall
    seconds: float

    def as_tuning(
        self,
        k: int,
        target_recall: float,
        n_queries: int,
        seconds_to_choose: float,
        seconds_untuned: float | None = None,
    ) -> Tuning:
        """The tuning that the index's manifest keeps. ``seconds_untuned`` is None if no times were measured."""
        learned = self.encoder.config if isinstance(self.encoder, LearnedSetEncoder) else None
        measured = {
            "target_recall": target_recall,
            "recall": round(self.recall.mean, 4),
            "recall_margin": round(self.recall.margin, 4),
            "dimension": self.encoder.output_dimension,
            "n_documents": len(self.candidates),
            "n_queries": n_queries,
            "seconds_to_choose": round(seconds_to_choose, 1),
        }
        if seconds_untuned is not None:
            measured["milliseconds"] = round(self.seconds * 1000, 3)
            measured["milliseconds_untuned"] = round(seconds_untuned * 1000, 3)
        if isinstance(self.candidates, HnswCandidates):
            measured |= asdict(self.graph)
        return Tuning(learned, None, None, k, self.n_candidates, self.ef, measured, self.graph)


def best(choices: Sequence[Choice], target: float) -> Choice:
    """The first choice that reaches ``target``, or one that saves much time. If none does, that of highest recall."""
    enough = [choice for choice in choices if choice.recall.mean >= target]
    if not enough:
        return max(choices, key=lambda choice: choice.recall.mean)
    fastest = min(enough, key=lambda choice: choice.seconds)
    return fastest if fastest.seconds <= enough[0].seconds * (1 - WORTH_A_CHANGE) else enough[0]

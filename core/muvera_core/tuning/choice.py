"""Stage ones that were measured, and which of them is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from muvera_core.set_encoders import LearnedSetEncoder, SetEncoder
from muvera_core.stage_one import Candidates, GraphParameters, HnswCandidates, Tuning

# They take longer to make, and more memory: of the time of a search, the share that one has to save.
_WORTH_ANOTHER_GRAPH = 0.1


@dataclass(frozen=True, eq=False)
class Choice:
    """A stage one that reaches the target.

    Attributes:
        encoder: makes the vectors.
        candidates: holds those of all documents.
        n_candidates: how many to rerank.
        ef: of a graph.
        graph: what it was made with.
        recall: share of the exact best documents among the candidates.
        seconds: a search takes for candidates and rerank.
    """

    encoder: SetEncoder
    candidates: Candidates
    n_candidates: int
    ef: int
    graph: GraphParameters
    recall: float
    seconds: float

    def as_tuning(self, k: int, target_recall: float, n_queries: int, seconds_to_choose: float) -> Tuning:
        """What the index's manifest keeps of it."""
        learned = self.encoder.config if isinstance(self.encoder, LearnedSetEncoder) else None
        measured = {
            "target_recall": target_recall,
            "recall": round(self.recall, 4),
            "milliseconds": round(self.seconds * 1000, 3),
            "dimension": self.encoder.output_dimension,
            "n_documents": len(self.candidates),
            "n_queries": n_queries,
            "seconds_to_choose": round(seconds_to_choose, 1),
        }
        if isinstance(self.candidates, HnswCandidates):
            measured |= asdict(self.graph)
        return Tuning(learned, None, None, k, self.n_candidates, self.ef, measured, self.graph)


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

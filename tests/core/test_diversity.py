from __future__ import annotations

import numpy as np
import pytest

from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.search.diversity import maximal_marginal_relevance

RELEVANCE = np.array([0.9, 0.88, 0.5, 0.4], np.float32)
# 0 and 1 are near-duplicates.
SIMILARITY = np.array([[1, 0.99, 0.1, 0.2], [0.99, 1, 0.1, 0.2], [0.1, 0.1, 1, 0.1], [0.2, 0.2, 0.1, 1]], np.float32)


@pytest.mark.parametrize(
    ("weight", "expected"), [(1.0, [0, 1, 2, 3]), (0.5, [0, 2, 3, 1]), (0.0, [0, 2, 3, 1])], ids=str
)
def test_redundancy_costs_what_the_weight_says(weight: float, expected: list[int]) -> None:
    assert maximal_marginal_relevance(RELEVANCE, SIMILARITY, 4, weight).tolist() == expected


def test_k_is_cut_to_what_is_there() -> None:
    assert maximal_marginal_relevance(RELEVANCE, SIMILARITY, 2, 0.5).tolist() == [0, 2]
    assert len(maximal_marginal_relevance(RELEVANCE, SIMILARITY, 9, 0.5)) == 4
    assert maximal_marginal_relevance(RELEVANCE[:0], SIMILARITY[:0, :0], 3, 0.5).tolist() == []


def test_near_duplicates_give_way_to_other_passages(encoder: BundledEncoder) -> None:
    texts = {
        "owl": "Owls hunt at night and sleep by day.",
        "owl again": "Owls hunt at night, and they sleep by day.",
        "owl once more": "Owls hunt by night and sleep by day.",
        "bat": "Bats find insects in the dark by echolocation.",
        "bread": "Rye bread keeps longer than wheat bread.",
    }
    question = "which animals hunt at night"
    with MuveraIndex.create(None, encoder) as index:
        index.add(list(texts.values()), ids=list(texts), metadatas=[{"food": id == "bread"} for id in texts])
        assert {hit.id for hit in index.search(question, k=3)} == {"owl", "owl again", "owl once more"}
        diverse = [hit.id for hit in index.search_diverse(question, k=2, fetch_k=5)]
        assert diverse[0].startswith("owl")
        assert not diverse[1].startswith("owl")
        same = [hit.id for hit in index.search_diverse(question, k=3, fetch_k=5, relevance_weight=1)]
        assert same == [hit.id for hit in index.search(question, k=3)]
        assert [hit.id for hit in index.search_diverse(question, filter={"food": True})] == ["bread"]
        assert len(index.search_diverse(question, k=50, fetch_k=1)) == 5
        with pytest.raises(InvalidInputError, match="relevance_weight"):
            index.search_diverse(question, relevance_weight=1.5)
        with pytest.raises(InvalidInputError, match="fetch_k"):
            index.search_diverse(question, fetch_k=0)
    with MuveraIndex.create(None, encoder) as empty:
        assert empty.search_diverse(question) == []

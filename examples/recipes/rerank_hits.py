"""Add late interaction to a search that exists: it finds candidates as before, and their order changes.

    python examples/recipes/rerank_hits.py

``existing_search`` stands for yours, which may be Elasticsearch, pgvector or a vector database. There are two ways:

- With an index. Texts are encoded once, when they are added. Fast, and takes 17 kB of disk for each passage.
- Without one. ``score_texts`` encodes the candidates for every question, about 13 ms each. There is nothing to keep in
  step.
"""

from __future__ import annotations

import re

from muvera_core import MuveraIndex, score_texts
from muvera_core.encoders import BundledEncoder

TEXTS = {
    "bank-1": "The bank raised its interest rates, and loans became dearer.",
    "bank-2": "We sat on the bank of the river, and the water was high.",
    "bank-3": "Which bank has the best rates? A bank compares badly with a bank that compares itself.",
    "owl": "Owls hunt at night.",
}
QUESTION = "Where on the bank did they have a picnic by the stream?"


def existing_search(question: str, k: int) -> list[str]:
    """Ids of the texts that have the most words of the question."""
    words = set(re.findall(r"\w+", question.lower()))
    counts = {id: sum(word in words for word in re.findall(r"\w+", text.lower())) for id, text in TEXTS.items()}
    return sorted((id for id in TEXTS if counts[id]), key=lambda id: -counts[id])[:k]


def main() -> None:
    candidates = existing_search(QUESTION, k=50)
    print("existing search:", *candidates)

    with MuveraIndex.create(None) as index:  # MuveraIndex.open_or_create("tokens.muvera") keeps it
        index.add(list(TEXTS.values()), ids=list(TEXTS))
        print("reranked by an index:", *(hit.id for hit in index.rerank(QUESTION, candidates)))

    _, scores = score_texts(BundledEncoder(), QUESTION, [TEXTS[id] for id in candidates])
    best = sorted(zip(scores, candidates, strict=True), reverse=True)
    print("reranked without one:", *(id for _, id in best))


if __name__ == "__main__":
    main()

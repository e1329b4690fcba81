"""Keep several users' documents apart: in one index by a filter, or in an index for each.

    python examples/recipes/tenants.py

A filter acts before candidates are chosen, so a user gets k hits if k of theirs exist, and never another's. Take an
index for each user if users must be copied, moved or removed as a whole, or have an encoder of their own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from langchain_muvera import MuveraRetriever
from muvera_core import Hit, MuveraIndex

NOTES = {
    "ada": ["The engine computes Bernoulli numbers.", "Lunch with Charles at noon."],
    "bob": ["The engine of the car needs oil.", "Lunch is at one."],
}


class Notes:
    """One index for all users. Every call names its user, so none can forget the filter."""

    def __init__(self, index: MuveraIndex) -> None:
        self.index = index

    def add(self, user: str, texts: list[str]) -> None:
        """Add notes. The user is part of the id, so that users cannot replace each other's."""
        ids = [f"{user}/{n}" for n in range(len(texts))]
        self.index.add(texts, ids, [{"user": user, "n_words": len(text.split())} for text in texts])

    def search(self, user: str, question: str, most_words: int = 100) -> list[Hit]:
        """The user's notes that match best."""
        return self.index.search(question, k=5, filter={"user": user, "n_words": {"$lte": most_words}})

    def retriever(self, user: str) -> MuveraRetriever:
        """The user's notes for a chain of LangChain."""
        return MuveraRetriever(index=self.index, k=5, filter={"user": user})

    def forget(self, user: str) -> int:
        """Delete all of the user's notes. Returns their number."""
        return self.index.delete(filter={"user": user})


def main() -> None:
    with MuveraIndex.create(None) as index:
        notes = Notes(index)
        for user, texts in NOTES.items():
            notes.add(user, texts)
        print("ada:", *(hit.id for hit in notes.search("ada", "engine oil")))
        print("bob, at most 4 words:", *(hit.id for hit in notes.search("bob", "engine oil", most_words=4)))
        print("bob, in LangChain:", *(str(document.id) for document in notes.retriever("bob").invoke("engine oil")))
        print(f"forgot {notes.forget('bob')} notes of bob, {len(index)} are left")

    with tempfile.TemporaryDirectory() as folder:
        for user, texts in NOTES.items():
            with MuveraIndex.open_or_create(Path(folder) / f"{user}.muvera") as index:
                index.add(texts)
        print("an index each:", *sorted(path.name for path in Path(folder).iterdir()))


if __name__ == "__main__":
    main()

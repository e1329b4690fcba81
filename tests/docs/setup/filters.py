"""What docs/filters.md takes for given: an index of documents with metadata."""

from muvera_core import MuveraIndex

index = MuveraIndex.create(None)
index.add(
    ["We raise prices in May.", "The office moves to Graz.", "Owls hunt at night."],
    metadatas=[
        {"year": 2024, "author": {"name": "Ada"}, "source": "report.pdf"},
        {"year": 2023, "draft": True, "source": "memo.md"},
        {"year": 2011, "tags": ["old", "birds"], "source": "birds.md"},
    ],
)

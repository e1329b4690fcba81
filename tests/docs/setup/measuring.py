"""What docs/measuring.md takes for given: an index, questions, and the ids that answer each."""

from muvera_core import MuveraIndex

index = MuveraIndex.create(None)
index.add([f"Bird number {i} sings in the {place}." for i, place in enumerate(["wood", "reed", "city", "hall"])])
ids = [document.id for document in index.iterate()]
questions = ["Which bird sings in the wood?", "Which bird sings in the city?"]
relevant = [{ids[0]}, {ids[2]}]

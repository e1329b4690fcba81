"""What docs/durability.md takes for given: an index."""

from muvera_core import MuveraIndex

with MuveraIndex.create("notes.muvera") as notes:
    notes.add(["We raise prices in May.", "Owls hunt at night."])

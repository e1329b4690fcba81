"""What the README takes for given: a folder of notes."""

from pathlib import Path

Path("notes").mkdir()
Path("notes/meeting.md").write_text("# Meeting\n\nWe decided to raise prices in May.\n", encoding="utf-8")
Path("notes/birds.txt").write_text("Owls hunt at night.\n", encoding="utf-8")

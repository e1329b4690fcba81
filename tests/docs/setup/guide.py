"""What docs/guide.md takes for given: a folder of notes, and questions about them."""

import json
from pathlib import Path

Path("notes").mkdir()
for number, subject in enumerate(["owls", "ants", "bats", "bees", "cranes", "frogs", "geckos", "herons", "moles"]):
    Path(f"notes/{subject}.md").write_text(f"# {subject.title()}\n\nNote {number} says how {subject} live.\n")
Path("notes/login.md").write_text("# Login\n\nERR-4012 at login means that the password has expired.\n")
Path("faq.jsonl").write_text(json.dumps({"id": "faq", "title": "Pricing", "text": "Prices rise in May.", "year": 2024}))
asked = {"q1": "When do prices rise?", "q2": "How do owls live?"}
Path("questions.jsonl").write_text("\n".join(json.dumps({"_id": name, "text": text}) for name, text in asked.items()))
Path("qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tfaq\t1\nq2\towls.md\t1\n")

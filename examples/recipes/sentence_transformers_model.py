"""Index and search with a late-interaction model of sentence-transformers 6, PyLate or ColBERT.

    python examples/recipes/sentence_transformers_model.py MODEL [--question TEXT] [--device NAME] [--dtype NAME]

MODEL is the folder of such a model. Nothing is downloaded: fetch one first, for instance with
``hf download lightonai/GTE-ModernColBERT-v1 --local-dir model``. Needs muvera-core[sentence-transformers].
"""

from __future__ import annotations

import argparse
from pathlib import Path

from muvera_core import MuveraIndex
from muvera_core.encoders import SentenceTransformerEncoder

PASSAGES = {
    "owl": "Owls hunt at night. Their feathers make almost no sound in flight.",
    "ant": "Ants live in colonies of up to several million.",
    "heron": "Herons stand still in shallow water and wait for fish.",
}
QUESTION = "Which bird is active after dark?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--device", help="for instance cuda (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"])
    arguments = parser.parse_args()

    encoder = SentenceTransformerEncoder(arguments.model, device=arguments.device, dtype=arguments.dtype)
    lengths = {name: encoder.settings[name] for name in ("document_length", "query_length")}
    print(f"{encoder.dimension} dimensions, {lengths}")
    with MuveraIndex.create(None, encoder) as index:
        index.add(list(PASSAGES.values()), ids=list(PASSAGES))
        print(f"Question: {arguments.question}")
        hits = index.search(arguments.question, k=2)
        for hit in hits:
            print(f"{hit.normalized_score:.2f} {hit.id}: {hit.text}")
        for match in index.explain(arguments.question, hits[0].id):
            if match.query_token and match.document_token:  # not a marker
                print(f"  {match.query_token!r} matches {match.document_token!r} ({match.similarity:.2f})")


if __name__ == "__main__":
    main()

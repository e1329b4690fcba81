"""Search with a late-interaction model in ONNX format, without PyTorch.

    python examples/recipes/onnx_model.py FOLDER [--question TEXT] [--index FOLDER] [--device cpu]

FOLDER holds model.onnx, tokenizer.json and onnx_config.json. ``muvera export-onnx MODEL FOLDER`` makes one.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from muvera_core import MuveraIndex
from muvera_core.encoders import OnnxEncoder

PASSAGES = {
    "owls": "Owls hunt at night. Their feathers make almost no sound in flight.",
    "bread": "Rye bread keeps for longer than white bread, because it holds water.",
    "tides": "The moon pulls the sea. Most coasts have two high tides a day.",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="FOLDER")
    parser.add_argument("--question", default="Which bird is active after dark?")
    parser.add_argument("--index", type=Path, help="folder for the index (default: a temporary folder)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, or an execution provider of onnxruntime")
    arguments = parser.parse_args()
    encoder = OnnxEncoder(arguments.model, device=arguments.device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.index or Path(temporary) / "notes.muvera"
        with MuveraIndex.open_or_create(folder, encoder) as index:
            # What the index has already is not encoded again.
            index.add(list(PASSAGES.values()), ids=list(PASSAGES))
            print(f"{len(index)} passages, {index.n_tokens / len(index):.0f} vectors of {encoder.dimension} each")
            for hit in index.search(arguments.question, k=3):
                print(f"  {hit.normalized_score:.2f} {hit.id}: {hit.text}")


if __name__ == "__main__":
    main()

"""What a newcomer does first, with the installed packages: index, search, ask through both frameworks, run again.

usage: python first_use.py FOLDER      a folder for the index; the packages must not be imported from a checkout

Prints a JSON object: where the packages were imported from, and what was found. The second run of the same lines must
encode nothing and find the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TEXTS = ["Ants live in colonies.", "Owls hunt at night.", "Herons stand still in shallow water."]
IDS = ["ant", "owl", "heron"]
QUESTION = "Which bird is active after dark?"


def main() -> None:
    folder = Path(sys.argv[1])
    first, second = (use(folder / "birds.muvera") for _ in range(2))
    if first["found"] != second["found"]:
        raise SystemExit(f"the second run found {second['found']}, the first {first['found']}")
    import muvera_kernels
    from llama_index.retrievers import muvera as llama_index_muvera

    import langchain_muvera
    import muvera_core

    modules = (muvera_core, muvera_kernels, langchain_muvera, llama_index_muvera)
    imported = {module.__name__: str(module.__file__) for module in modules}
    print(json.dumps({"imported": imported, "encoded": [first["encoded"], second["encoded"]], **second["found"]}))


def use(path: Path) -> dict[str, Any]:
    """Index, and ask in four ways. Says how many texts were encoded, and which document each way found."""
    from llama_index.retrievers.muvera import MuveraRetriever as LlamaIndexRetriever

    from langchain_muvera import MuveraRetriever as LangChainRetriever
    from muvera_core import MuveraIndex
    from muvera_core.encoders import BundledEncoder

    class CountingEncoder(BundledEncoder):
        encoded = 0

        def encode_documents(self, texts: Any) -> Any:
            self.encoded += len(texts)
            return super().encode_documents(texts)

    encoder = CountingEncoder()
    with MuveraIndex.open_or_create(path, encoder) as index:
        index.add(TEXTS, ids=IDS)
        found = {
            "core": index.search(QUESTION, k=1)[0].id,
            "langchain": LangChainRetriever(index=index, k=1).invoke(QUESTION)[0].id,
            "llama_index": LlamaIndexRetriever(index, similarity_top_k=1).retrieve(QUESTION)[0].node_id,
        }
    search = [sys.executable, "-m", "muvera_core.cli", "search", str(path), QUESTION, "-k", "1"]
    found["command line"] = subprocess.run(search, check=True, capture_output=True, text=True).stdout
    return {"found": found, "encoded": encoder.encoded}


if __name__ == "__main__":
    main()

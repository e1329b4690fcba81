"""What kind of model a folder or repository holds, by its small JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muvera_core.encoders.json_files import read_json

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
# The architecture that colbert-ai writes into config.json.
COLBERT_AI = "HF_ColBERT"


def is_model_folder(folder: Path) -> bool:
    """Whether only sentence-transformers opens a folder: its own models, PyLate's, and retrievers such as ColPali."""
    if (folder / MODULES).is_file():
        return True
    config = folder / "config.json"
    return config.is_file() and any(map(is_retriever, architectures(read_json(config, "the model's architecture"))))


def is_retriever(architecture: str) -> bool:
    """Whether an architecture of transformers gives one vector per token or patch itself."""
    return architecture.endswith("ForRetrieval")


def architectures(config: Mapping[str, Any]) -> list[str]:
    """The architectures that a config.json names."""
    names = config.get("architectures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

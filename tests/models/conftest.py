from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per kind of model, with random weights."""
    from small_models import quietly, save_all

    return quietly(save_all, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def library_models(folders: dict[str, Path]) -> dict[str, Any]:
    """The same models, loaded by sentence-transformers itself."""
    from sentence_transformers import MultiVectorEncoder
    from small_models import quietly

    return {
        kind: quietly(MultiVectorEncoder, str(folder), device="cpu", local_files_only=True)
        for kind, folder in folders.items()
    }



"""Models of sentence-transformers on a GPU: a real one, or the CPU as if it were one."""

from __future__ import annotations

import numpy as np
import pytest

from muvera_core import TokenEmbeddings, device_rows
from muvera_core.encoders import SentenceTransformerEncoder


@pytest.fixture(params=["simulated", "cuda"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device of models whose vectors stay on a GPU: a real one, or the CPU as if it were one."""
    import torch

    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("PyTorch finds no GPU")
        return "cuda"
    monkeypatch.setattr(SentenceTransformerEncoder, "_is_on_cuda", True)
    monkeypatch.setattr(device_rows, "cuda_gpu_of", lambda value: 0 if isinstance(value, torch.Tensor) else None)
    return "cpu"


def on_gpu(embeddings: TokenEmbeddings) -> np.ndarray:
    """The vectors that are still on the GPU."""
    assert embeddings.on_gpu is not None
    [run] = embeddings.on_gpu.runs  # one tensor for the whole call
    array: np.ndarray = run.array[run.start : run.stop].cpu().numpy()
    return array

"""What most RAG programs do today: one vector per passage, by all-MiniLM-L6-v2 as it was published.

The bundled encoder was trained from the same weights. So a comparison of the two shows what late interaction and its
training change, and not what another size or architecture does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from safetensors.numpy import load_file

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
import build_bundled_encoder as tool

# The published model's max_seq_length, which counts [CLS] and [SEP].
MAX_TOKENS = 256

Floats = npt.NDArray[np.float32]


class MeanPooledMiniLM:
    """all-MiniLM-L6-v2 in float32: the mean of a text's token states, at unit length.

    A text's vector is computed on its own, without padding, by one thread of onnxruntime.
    """

    def __init__(self) -> None:
        source = tool.find_source()
        # The weights as published, where the bundled encoder has trained ones.
        weights = load_file(tool.require_input(source / "model.safetensors"))
        self._tokenizer = tool.build_tokenizer(source)
        self._tokenizer.enable_truncation(MAX_TOKENS)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        model = tool.build_model(weights, "float32", projected=False)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def encode(self, texts: Sequence[str]) -> Floats:
        """One vector of unit length per text, float32, shape (texts, 384)."""
        return np.stack([self._encode_one(text) for text in texts])

    def _encode_one(self, text: str) -> Floats:
        ids = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)
        mean = self._session.run(None, {"input_ids": ids})[0].mean(axis=0)
        vector: Floats = mean / np.linalg.norm(mean)
        return vector


class OneVectorIndex:
    """Finds passages by the cosine of their vector with the question's, by a scan of all of them."""

    def __init__(self, encoder: MeanPooledMiniLM, ids: Sequence[str], texts: Sequence[str]) -> None:
        self._encoder, self._ids, self._vectors = encoder, ids, encoder.encode(texts)

    def search(self, question: str, k: int) -> list[str]:
        """Ids of the ``k`` nearest passages, best first."""
        scores = self._vectors @ self._encoder.encode([question])[0]
        best = np.argpartition(-scores, k)[:k]
        return [self._ids[i] for i in best[np.argsort(-scores[best], kind="stable")]]

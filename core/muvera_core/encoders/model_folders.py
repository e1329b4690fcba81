"""Opens the folder of any model with the encoder that it is for."""

from __future__ import annotations

import importlib.util
import os
from importlib import metadata
from pathlib import Path

from muvera_core.encoders.onnx.config import CONFIG_FILE
from muvera_core.encoders.protocol import TokenEncoder
from muvera_core.encoders.sentence_transformer.folders import is_model_folder
from muvera_core.errors import EncoderError, MissingExtraError
from muvera_core.validation import require_path

# How the fingerprints of encoders begin.
_ONNX = "onnx:"
_COLBERT, _SENTENCE_TRANSFORMERS = "colbert-ai:", "sentence-transformers:"


def load_encoder(
    folder: str | os.PathLike[str], fingerprint: str | None = None, device: str | None = None
) -> TokenEncoder:
    """The encoder of a model's folder, with its default settings.

    A model of sentence-transformers or PyLate needs the extra ``sentence-transformers``. A checkpoint of colbert-ai
    needs the extra ``colbert`` or ``sentence-transformers``, whose encoders have different fingerprints. A model in
    ONNX format needs no extra. A folder that holds both formats is opened with sentence-transformers if that is
    installed, unless the index was made with the ONNX model.

    Args:
        folder: the model's folder.
        fingerprint: that of an index which the encoder is for. It decides between two encoders that fit.
        device: what the encoder computes on: "cpu", "cuda", "cuda:N", or another device that it knows. None takes the
            encoder's own default: the CPU for a model in ONNX format, otherwise a GPU if there is one.

    Raises:
        InvalidInputError: ``folder`` is not a path, or the encoder does not know the device.
        DeviceError: onnxruntime cannot use the device.
        EncoderError: it is not a folder, or not one of a model that can be loaded.
        MissingExtraError: the extra that the model needs is not installed; the message names it.
    """
    path = require_path("folder", folder).expanduser()
    if not path.is_dir():
        raise EncoderError(f"{path} is not a folder: name the folder of a model, which is never downloaded")
    if (path / CONFIG_FILE).is_file() and _runs_with_onnxruntime(path, fingerprint or ""):
        from muvera_core.encoders.onnx.encoder import OnnxEncoder

        return OnnxEncoder(path, device=device or "cpu")
    if is_model_folder(path) or not _runs_with_colbert_ai(fingerprint or ""):
        from muvera_core.encoders.sentence_transformer.encoder import SentenceTransformerEncoder

        return SentenceTransformerEncoder(path, device=device)
    from muvera_core.encoders.colbert_ai.encoder import ColBERTEncoder

    return ColBERTEncoder(path, device=device)


def _runs_with_onnxruntime(folder: Path, fingerprint: str) -> bool:
    """Whether OnnxEncoder, not SentenceTransformerEncoder, opens a folder that holds an ONNX model."""
    is_other, is_onnx = is_model_folder(folder), fingerprint.startswith(_ONNX)
    return not is_other or is_onnx or not _has_sentence_transformers()


def _has_sentence_transformers() -> bool:
    try:
        return int(metadata.version("sentence-transformers").split(".")[0]) >= 6
    except metadata.PackageNotFoundError:
        return False


def _runs_with_colbert_ai(fingerprint: str) -> bool:
    """Whether ColBERTEncoder, not SentenceTransformerEncoder, opens a checkpoint of colbert-ai."""
    if fingerprint.startswith(_COLBERT):
        return True
    if fingerprint.startswith(_SENTENCE_TRANSFORMERS):
        return False
    if importlib.util.find_spec("colbert") is not None:
        return True
    if not _has_sentence_transformers():
        raise MissingExtraError(
            "a ColBERT checkpoint needs colbert-ai or sentence-transformers: pip install 'muvera-core[colbert]' or "
            "pip install 'muvera-core[sentence-transformers]'"
        )
    return False

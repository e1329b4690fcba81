"""Checks a ColBERT checkpoint folder by reading its files, before any model code sees it.

colbert-ai and transformers trust a checkpoint: by default they run Python code that its config names, download missing
parts, unpickle old formats and draw missing weights at random. A folder from somebody else must not cause any of this,
so such folders are refused here, with a message that says what to do.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvera_core.encoders.hub_code import refuse_hub_kernels
from muvera_core.encoders.json_files import read_json
from muvera_core.errors import DimensionMismatchError, EncoderError
from muvera_core.validation import require_path

# In the order in which transformers looks for them.
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
# A tokenizer can be built from any one of these files.
_VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spm.model")
_TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
_COLBERT_SETTINGS = "artifact.metadata"
# colbert-ai's default if artifact.metadata does not set dim (DocSettings.dim).
_DEFAULT_DIMENSION = 128


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder that passed the checks.

    Attributes:
        path: the absolute path. A relative path such as ``models/colbert`` looks like the name of a repository, which
            colbert-ai would look up on the hub.
        dimension: width of the token vectors. The linear layer and artifact.metadata agree on it.
        weights: the file that transformers will load.
        weight_names: the names of the tensors in it.
        settings_file: artifact.metadata; None if the folder has none, so that colbert-ai's defaults apply.
    """

    path: Path
    dimension: int
    weights: Path
    weight_names: frozenset[str]
    settings_file: Path | None


def inspect_checkpoint(checkpoint: str | os.PathLike[str]) -> CheckpointFolder:
    """Check that a folder holds a complete ColBERT checkpoint that can be loaded without code or downloads.

    Raises:
        EncoderError: it is not a folder, or a file in it is missing, unreadable or unsafe.
        DimensionMismatchError: artifact.metadata and the linear layer disagree on the dimension.
    """
    given = require_path("checkpoint", checkpoint)
    try:
        path = Path(checkpoint).expanduser().resolve()
    except (OSError, RuntimeError) as error:  # a cycle of links, or ~ without a home folder
        raise EncoderError(f"{given} cannot be found: {error}") from error
    if path.suffix == ".dnn":
        raise EncoderError(
            f"{path} is in colbert-ai's old .dnn format, a pickle, which can run code when it is loaded: "
            "convert it with colbert-ai on an isolated machine and pass the folder that it saves"
        )
    if not path.is_dir():
        raise EncoderError(
            f"ColBERTEncoder needs a checkpoint folder, but {os.fspath(checkpoint)!r} is not a folder. It never "
            "downloads: fetch the model first, e.g. hf download colbert-ir/colbertv2.0 --local-dir colbertv2.0, "
            "and pass that folder"
        )
    config = read_json(path / "config.json", "the model's architecture")
    _refuse_indirection(path, config)
    if not any((path / name).is_file() for name in _VOCABULARY_FILES):
        raise EncoderError(f"{path} has no tokenizer: expected one of {', '.join(_VOCABULARY_FILES)}")
    weights = next((path / name for name in _WEIGHT_FILES if (path / name).is_file()), None)
    if weights is None:
        raise EncoderError(f"{path} has no weights: expected {' or '.join(_WEIGHT_FILES)}, in one file")
    shapes = _safetensors_shapes(weights) if weights.suffix == ".safetensors" else _pickled_shapes(weights)
    settings_file = path / _COLBERT_SETTINGS
    has_settings = settings_file.is_file()
    settings = read_json(settings_file, "ColBERT's settings") if has_settings else {}
    # colbert-ai writes the settings at the top level or under "config", and reads both.
    nested = settings.get("config")
    dimension = (nested if isinstance(nested, dict) else settings).get("dim", _DEFAULT_DIMENSION)
    _require_linear_layer(weights, shapes, dimension)
    return CheckpointFolder(path, dimension, weights, frozenset(shapes), settings_file if has_settings else None)


def content_hash(folder: CheckpointFolder, settings: Mapping[str, object]) -> str:
    """Name a checkpoint by its content, so that a moved or copied folder keeps its name.

    artifact.metadata is not hashed as a file, because it holds its author's paths and training options. Instead,
    ``settings`` has the settings that change vectors.

    Returns:
        ``colbert-ai:`` and the SHA-256, in hexadecimal, of the config, weights, tokenizer and settings.
    """
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode())
    for name in sorted({"config.json", folder.weights.name, *_VOCABULARY_FILES, *_TOKENIZER_SETTINGS}):
        if (folder.path / name).is_file():
            with (folder.path / name).open("rb") as file:
                digest.update(f"\n{name} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    return f"colbert-ai:{digest.hexdigest()}"


def _refuse_indirection(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder that makes transformers get code or weights from elsewhere."""
    tokenizer_config = path / "tokenizer_config.json"
    tokenizer = read_json(tokenizer_config, "the tokenizer's settings") if tokenizer_config.is_file() else {}
    for name, content in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        if content.get("auto_map") is not None:
            raise EncoderError(
                f"{path / name} has an auto_map: the model needs its own Python code, which muvera does not run. "
                "Use a checkpoint of an architecture that transformers includes"
            )
    refuse_hub_kernels(config, str(path / "config.json"))
    if (path / "adapter_config.json").exists():
        raise EncoderError(
            f"{path} is an adapter for another model, which might have to be downloaded: "
            "merge the two, save the result and pass that folder"
        )


def _require_linear_layer(weights: Path, shapes: Mapping[str, tuple[int, ...]], dimension: object) -> None:
    shape = shapes.get("linear.weight")
    if shape is None or len(shape) != 2:
        raise EncoderError(
            f"{weights} has no linear.weight, the layer that turns a language model's states into token vectors: "
            "use a ColBERT checkpoint that colbert-ai saved"
        )
    if shape[0] != dimension:
        raise DimensionMismatchError(
            f"{weights} gives {shape[0]}-d token vectors, but {_COLBERT_SETTINGS} in the same folder has dim "
            f"{dimension!r} ({_DEFAULT_DIMENSION} if it does not say): use files that belong together"
        )


def _safetensors_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Tensor shapes from the header of a safetensors file: its length in 8 bytes, little-endian, then JSON."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError(f"a header of {length} bytes in a file of {file.stat().st_size}")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        return {name: tuple(entry["shape"]) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EncoderError(f"{file} is not a complete safetensors file: {error}. Download it again") from error


def _pickled_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Tensor shapes of a PyTorch file, read with the unpickler that accepts only tensors and runs no code."""
    import torch

    try:
        state = torch.load(file, map_location="meta", weights_only=True)
        return {name: tuple(tensor.shape) for name, tensor in state.items()}
    except Exception as error:  # torch raises many kinds for a broken file
        raise EncoderError(
            f"{file} cannot be read as plain weights: {error}. Save the model as safetensors instead"
        ) from error

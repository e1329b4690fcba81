"""Looks over a ColBERT checkpoint folder with nothing but file reads, before any model code sees it.

colbert-ai and transformers trust what a checkpoint says: left alone they run Python code that its config names,
download what they can't find, unpickle old formats and draw missing weights at random. None of that may happen
because of a folder that somebody was handed, so it is refused here, with a message that says what to do.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvera_core.errors import DimensionMismatchError, EncoderError
from muvera_core.validation import require_path

# In the order in which transformers looks for them.
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
# A tokenizer can be built from any one of these; the others only add to it.
_VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spm.model")
_TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
_COLBERT_SETTINGS = "artifact.metadata"
# colbert-ai's default where artifact.metadata doesn't say (DocSettings.dim).
_DEFAULT_DIMENSION = 128


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder that passed the checks.

    Attributes:
        path: absolute. colbert-ai asks the hub about anything that looks like a repository's name, such as the
            relative path ``models/colbert``; an absolute path never does.
        dimension: width of the token vectors, of the linear layer's rows and of artifact.metadata alike.
        weights: the file that transformers will load.
        weight_names: the names of the tensors in it.
        settings_file: artifact.metadata, or None where the folder has none and colbert-ai's defaults hold.
    """

    path: Path
    dimension: int
    weights: Path
    weight_names: frozenset[str]
    settings_file: Path | None


def inspect_checkpoint(checkpoint: str | os.PathLike[str]) -> CheckpointFolder:
    """Check that a folder holds a complete ColBERT checkpoint that can be loaded without code or downloads.

    Raises:
        EncoderError: not a folder, or something in it is missing, unreadable or unsafe.
        DimensionMismatchError: artifact.metadata and the linear layer disagree on the dimension.
    """
    given = require_path("checkpoint", checkpoint)
    try:
        path = Path(checkpoint).expanduser().resolve()
    except (OSError, RuntimeError) as error:  # a circle of links, or ~ for somebody without a home
        raise EncoderError(f"{given} can't be found: {error}") from error
    if path.suffix == ".dnn":
        raise EncoderError(
            f"{path} is in colbert-ai's old .dnn format, a pickle, which can run code when it is loaded; "
            "convert it with colbert-ai on a machine you can afford to lose and pass the folder it saves"
        )
    if not path.is_dir():
        raise EncoderError(
            f"ColBERTEncoder needs a checkpoint folder, and {os.fspath(checkpoint)!r} isn't one. It never downloads: "
            "fetch the model first, e.g. hf download colbert-ir/colbertv2.0 --local-dir colbertv2.0, "
            "and pass that folder"
        )
    config = _read_json(path / "config.json", "the model's architecture")
    _refuse_indirection(path, config)
    if not any((path / name).is_file() for name in _VOCABULARY_FILES):
        raise EncoderError(f"{path} has no tokenizer: expected one of {', '.join(_VOCABULARY_FILES)}")
    weights = next((path / name for name in _WEIGHT_FILES if (path / name).is_file()), None)
    if weights is None:
        raise EncoderError(f"{path} has no weights: expected {' or '.join(_WEIGHT_FILES)}, in one piece")
    shapes = _safetensors_shapes(weights) if weights.suffix == ".safetensors" else _pickled_shapes(weights)
    settings_file = path / _COLBERT_SETTINGS
    has_settings = settings_file.is_file()
    settings = _read_json(settings_file, "ColBERT's settings") if has_settings else {}
    # colbert-ai writes the settings at the top level or under "config"; it reads both.
    nested = settings.get("config")
    dimension = (nested if isinstance(nested, dict) else settings).get("dim", _DEFAULT_DIMENSION)
    _require_linear_layer(weights, shapes, dimension)
    return CheckpointFolder(path, dimension, weights, frozenset(shapes), settings_file if has_settings else None)


def content_hash(folder: CheckpointFolder, settings: Mapping[str, object]) -> str:
    """Name a checkpoint by what is in it, so that a moved or copied folder keeps its name.

    artifact.metadata isn't hashed as a file: it is full of its author's paths and training options. The settings
    that change vectors go in through ``settings`` instead.

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
    """Refuse a folder that sends transformers elsewhere for code or weights."""
    tokenizer_config = path / "tokenizer_config.json"
    tokenizer = _read_json(tokenizer_config, "the tokenizer's settings") if tokenizer_config.is_file() else {}
    for name, content in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        if content.get("auto_map") is not None:
            raise EncoderError(
                f"{path / name} has an auto_map: the model comes with Python code of its own, which muvera doesn't "
                "run. Use a checkpoint of an architecture that transformers itself has"
            )
    for key, value in config.items():
        # An attention named "owner/repository" is compiled code that transformers fetches from the hub.
        if "attn_implementation" in key and "/" in json.dumps(value):
            raise EncoderError(f"{path / 'config.json'} names code on the hub, {key} {value!r}: remove that entry")
    if (path / "adapter_config.json").exists():
        raise EncoderError(
            f"{path} is an adapter on top of another model, which may be a download: "
            "merge the two, save the result and pass that folder"
        )


def _require_linear_layer(weights: Path, shapes: Mapping[str, tuple[int, ...]], dimension: object) -> None:
    shape = shapes.get("linear.weight")
    if shape is None or len(shape) != 2:
        raise EncoderError(
            f"{weights} has no linear.weight, the layer that makes token vectors of a language model's states: "
            "it isn't a ColBERT checkpoint as colbert-ai saves it"
        )
    if shape[0] != dimension:
        raise DimensionMismatchError(
            f"{weights} makes {shape[0]}-d token vectors, but {_COLBERT_SETTINGS} beside it (128 where it doesn't say) "
            f"expects dim {dimension!r}: the files don't belong together"
        )


def _read_json(file: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderError(f"{file}, {what}, can't be read: {error}") from error
    if not isinstance(content, dict):
        raise EncoderError(f"{file}, {what}, must hold a JSON object, got {type(content).__name__}")
    return content


def _safetensors_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Tensor shapes from the header: its length in 8 bytes, little-endian, then JSON (the safetensors format)."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError(f"a header of {length} bytes in a file of {file.stat().st_size}")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        return {name: tuple(entry["shape"]) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EncoderError(f"{file} isn't a complete safetensors file: {error}; fetch it again") from error


def _pickled_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Tensor shapes of a PyTorch file, through the unpickler that accepts tensors and nothing that runs."""
    import torch

    try:
        state = torch.load(file, map_location="meta", weights_only=True)
        return {name: tuple(tensor.shape) for name, tensor in state.items()}
    except Exception as error:  # torch raises many kinds for a broken file
        raise EncoderError(
            f"{file} can't be read as plain weights: {error}; save the model as safetensors instead"
        ) from error

"""Names a loaded model by its content, so that a moved folder keeps its name and exchanged weights change it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Entries of transformers' configurations that say where a model comes from, or how it is run, not what it computes.
_INCIDENTAL = frozenset(
    """
    _name_or_path name_or_path architectures auto_map transformers_version dtype torch_dtype use_cache return_dict
    output_hidden_states output_attentions attn_implementation _attn_implementation chunk_size_feed_forward
    processor_class tokenizer_class image_processor_type feature_extractor_type video_processor_type
    problem_type num_labels id2label label2id
    """.split()  # noqa: SIM905
)
_WEIGHT_SUFFIXES = (".onnx", ".onnx_data", ".xml", ".bin")


def content_hash(model: Any, folder: Path | None, settings: Mapping[str, object]) -> str:
    """Hash what decides a model's vectors: weights, modules, tokenizer, prompts and our own settings.

    A model object and the folder that it is saved to have the same hash.

    Args:
        model: a ``MultiVectorEncoder``.
        folder: the folder that it was loaded from, if any; read only for backends other than PyTorch, whose weights are
            in files.
        settings: further settings that change vectors.

    Returns:
        ``sentence-transformers:`` and a SHA-256 in hexadecimal.
    """
    description = {
        "settings": dict(settings),
        "prompts": dict(model.prompts),
        "default_prompt_name": model.default_prompt_name,
        "modules": [_module(name, module) for name, module in _modules(model)],
    }
    digest = hashlib.sha256(
        json.dumps(description, sort_keys=True, default=lambda value: type(value).__name__).encode()
    )
    with ThreadPoolExecutor() as pool:  # hashing releases the GIL
        hashes = pool.map(_hash_tensor, _tensors(model))
        for line in sorted(hashes):
            digest.update(line.encode())
    if model.get_backend() != "torch" and folder is not None:
        for file in sorted(path for path in folder.rglob("*") if path.suffix in _WEIGHT_SUFFIXES):
            with file.open("rb") as stream:
                digest.update(f"\n{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}".encode())
    return f"sentence-transformers:{digest.hexdigest()}"


def _modules(model: Any) -> Iterator[tuple[str, Any]]:
    """The modules of sentence-transformers, also those inside of a Router."""
    found = ((name, module) for name, module in model.named_modules() if module is not model)
    return ((name, module) for name, module in found if hasattr(module, "get_config_dict"))


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    # A text model's pooler makes one vector of all tokens. Checkpoints often lack it, and then it is random.
    pooler = tuple(f"{name}.model.pooler." for name, _ in _modules(model))
    return ((name, tensor) for name, tensor in model.state_dict().items() if not name.startswith(pooler))


def _hash_tensor(entry: tuple[str, Any]) -> str:
    import torch

    name, tensor = entry
    values = tensor.detach().cpu().contiguous()
    bits = values.flatten().view(torch.uint8).numpy() if values.numel() else b""
    digest = hashlib.sha256(bits).hexdigest()
    return f"\n{name} {values.dtype} {tuple(values.shape)} {digest}"


def _module(name: str, module: Any) -> list[Any]:
    transformer = getattr(getattr(module, "model", None), "config", None)
    architecture = _plain(transformer.to_dict()) if transformer is not None else None
    texts = _tokenizer(getattr(module, "tokenizer", None))
    images = _processor(getattr(module, "processor", None))
    return [name, type(module).__name__, _plain(module.get_config_dict()), architecture, texts, images]


def _tokenizer(tokenizer: Any) -> Any:
    if tokenizer is None:
        return None
    limits = [tokenizer.model_max_length, tokenizer.padding_side, tokenizer.truncation_side]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return [type(tokenizer).__name__, tokenizer.get_vocab(), limits]
    content = json.loads(backend.to_str())
    # Every call sets these two.
    content["truncation"] = content["padding"] = None
    return [content, limits, tokenizer.chat_template]


def _processor(processor: Any) -> Any:
    """The settings of a processor that images pass through."""
    images = getattr(processor, "image_processor", None)
    if images is None:
        return None
    return [_plain(images.to_dict()), getattr(processor, "chat_template", None)]


def _plain(config: Any) -> Any:
    """A configuration without its incidental entries, at all depths."""
    if isinstance(config, Mapping):
        return {str(key): _plain(value) for key, value in config.items() if key not in _INCIDENTAL}
    if isinstance(config, (list, tuple)):
        return [_plain(value) for value in config]
    return config

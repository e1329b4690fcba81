"""Loads the files of an encoder that comes with a package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from muvera_core.encoders.onnx.folder import load_tokenizer, require_files, special_tokens_around, unknown_token
from muvera_core.encoders.onnx.session import OnnxModel, is_cpu
from muvera_core.encoders.text.layout import TextFormat
from muvera_core.encoders.text.prefixes import InsertedPrefix
from muvera_core.encoders.text.tokenizing import LimitedTokenizer
from muvera_core.errors import DeviceError, EncoderError


@dataclass(frozen=True)
class PackagedModel:
    """The model, and how texts become its input.

    Attributes:
        settings: the content of encoder.json.
        model: runs the model. On a GPU it takes texts of several lengths together.
        documents: gives the wordpieces of documents; each character of an unknown word counts as one.
        queries: the same for queries.
        format: the special tokens and windows.
    """

    settings: dict[str, Any]
    model: OnnxModel
    documents: InsertedPrefix
    queries: InsertedPrefix
    format: TextFormat


def load_packaged_model(folder: Path, package: str, device: str, word_start: str | None = None) -> PackagedModel:
    """Load encoder.json, tokenizer.json and model.onnx. For a GPU also gpu.onnx, the graph of the same model for GPUs.

    Args:
        folder: where they are.
        package: the package that brought them.
        device: "cpu", "cuda", "cuda:N", or the name of one of onnxruntime's execution providers.
        word_start: the token that marks the start of a word, if it can be a token of its own: it then has no vector.

    Raises:
        DeviceError: this onnxruntime cannot use the device.
        EncoderError: a file is missing or damaged.
    """
    remedy, on_cpu = f"reinstall {package}", is_cpu(device)
    try:
        settings = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        require_files(folder, settings["files"], remedy)
        if not on_cpu:
            require_files(folder, settings["gpu_files"], remedy)
        # "[SEP]" written in a text is text, not a marker.
        tokenizer = load_tokenizer(folder / "tokenizer.json", reads_special_tokens=False, remedy=remedy)
        limited = LimitedTokenizer(tokenizer, settings.get("unknown_id", unknown_token(tokenizer)), splits_unknown=True)
        before, after = special_tokens_around(tokenizer)
        return PackagedModel(
            settings=settings,
            model=OnnxModel(folder / ("model.onnx" if on_cpu else "gpu.onnx"), device=device, remedy=remedy),
            documents=InsertedPrefix(limited, _ids(tokenizer, settings.get("document_prefix", ""))),
            queries=InsertedPrefix(limited, _ids(tokenizer, settings.get("query_prefix", ""))),
            format=TextFormat(
                before=before,
                after=after,
                # Measured: splitting a text that fits loses accuracy, and so do windows of full length for a longer
                # text.
                whole=settings["positions"],
                window=settings["window_tokens"],
                overlap=settings["window_overlap"],
                kept_specials="windows",
                keeps_prefix=False,
                skipped=frozenset() if word_start is None else frozenset([tokenizer.token_to_id(word_start)]),
                unknown="characters",
            ),
        )
    except DeviceError:
        raise
    except Exception as error:  # whatever the files hold, the remedy is the same
        if isinstance(error, EncoderError) and remedy in str(error):
            raise
        raise EncoderError(f"the encoder in {folder} cannot be loaded ({error}): {remedy}") from error


def _ids(tokenizer: Tokenizer, prefix: str) -> list[int]:
    ids: list[int] = tokenizer.encode(prefix, add_special_tokens=False).ids
    return ids

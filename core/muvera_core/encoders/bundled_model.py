"""Loads the files of the bundled encoder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvera_core.encoders.layout import TextFormat
from muvera_core.encoders.onnx.folder import load_tokenizer, require_files, special_tokens_around, unknown_token
from muvera_core.encoders.onnx.session import OnnxModel
from muvera_core.encoders.prefixes import InsertedPrefix
from muvera_core.encoders.tokenizing import LimitedTokenizer
from muvera_core.errors import EncoderError

_REMEDY = "reinstall muvera-core"


@dataclass(frozen=True)
class BundledModel:
    """The model, and how texts become its input.

    Attributes:
        settings: the content of encoder.json.
        model: runs the model.
        tokenizer: gives wordpieces; each character of an unknown word counts as one.
        format: the special tokens and windows.
    """

    settings: dict[str, Any]
    model: OnnxModel
    tokenizer: InsertedPrefix
    format: TextFormat


def load_bundled_model(folder: Path) -> BundledModel:
    """Load the files in ``folder``. Raises EncoderError if one is missing or damaged."""
    try:
        settings = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        require_files(folder, settings["files"], _REMEDY)
        # "[SEP]" written in a text is text, not a marker.
        tokenizer = load_tokenizer(folder / "tokenizer.json", reads_special_tokens=False, remedy=_REMEDY)
        before, after = special_tokens_around(tokenizer)
        return BundledModel(
            settings=settings,
            model=OnnxModel(folder / "model.onnx", remedy=_REMEDY),
            tokenizer=InsertedPrefix(LimitedTokenizer(tokenizer, unknown_token(tokenizer), splits_unknown=True)),
            format=TextFormat(
                before=before,
                after=after,
                # Measured: splitting a text that fits loses accuracy, and so do windows of full length for a longer
                # text.
                whole=settings["positions"],
                window=settings["window_tokens"],
                overlap=settings["window_overlap"],
                kept_specials="windows",
                unknown="characters",
            ),
        )
    except Exception as error:  # whatever the files hold, the remedy is the same
        if isinstance(error, EncoderError) and _REMEDY in str(error):
            raise
        raise EncoderError(f"the bundled encoder in {folder} cannot be loaded ({error}): {_REMEDY}") from error

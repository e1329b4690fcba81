"""The files of ``muvera_core.encoders.MultilingualEncoder``."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FOLDER"]

FOLDER = Path(__file__).parent
"""The folder with model.onnx, tokenizer.json and encoder.json, which describes them."""

"""What docs/encoders.md takes for given: models, functions that encode, and pages. Every section has a folder."""

import shutil
from pathlib import Path

from markdown_pages import ROOT
from not_run import is_installed
from tiny_onnx import write_folder

from muvera_core.encoders import BundledEncoder

START_AFRESH = True

write_folder(Path("models/gte-onnx"), {"query_length": 32, "document_length": 64, "mask_token_id": 4})
if is_installed("colbert-ai"):
    shutil.copytree(ROOT / "tests/core/data/colbert-checkpoint", "models/colbertv2.0")
if is_installed("sentence-transformers>=6"):
    from PIL import Image
    from small_models import quietly, save_pylate
    from small_vision_models import save_colqwen2

    quietly(save_pylate, Path("models/gte-moderncolbert"))
    quietly(save_colqwen2, Path("models/colqwen2-v1.0"))
    Path("pages").mkdir()
    for number in (1, 2):
        Image.new("RGB", (60, 80), (90 * number, 120, 40)).save(f"pages/{number}.png")


def encode_documents(texts):
    encoded = BundledEncoder().encode_documents(texts)
    return [encoded[i] for i in range(len(texts))]


encode_queries = encode_documents

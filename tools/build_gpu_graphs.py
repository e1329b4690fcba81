"""Builds the graphs that the packaged encoders run on a GPU: ``gpu.onnx`` beside each ``model.onnx``.

    pip install onnx
    python tools/build_gpu_graphs.py

The scripts that build the models do this as well.

The models were made for CPUs: one text at a time, 8-bit products, operators that onnxruntime lacks on GPUs. A graph for
GPUs computes the same with other nodes. It takes texts of different lengths together. It holds no weights: it names the
place of each one in model.onnx, so a few kilobytes are enough. The same version of onnx gives the same bytes.

- 8-bit weights become float32 while the model is loaded, by nodes that onnxruntime computes once. Activations are not
  rounded to 8 bits, as they are on the CPU. So vectors differ by that rounding.
- 4-bit weights stay as they are: onnxruntime multiplies with them on GPUs, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, external_data_helper, helper, numpy_helper

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = (
    REPOSITORY / "core" / "muvera_core" / "encoders" / "assets",
    REPOSITORY / "core" / "multilingual" / "muvera_multilingual",
)
MODEL, GRAPH = "model.onnx", "gpu.onnx"
# Tensors of fewer bytes are copied: naming their place takes as much.
_COPIED = 256
_ONES, _ZEROS, _MASK = "ones", "zeros", "mask"


def build_graph(model_file: Path) -> bytes:
    """The serialised graph: ``input_ids`` and ``attention_mask``, int64 (B, T), to ``token_embeddings`` (B, T, D)."""
    content = model_file.read_bytes()
    model = onnx.load_from_string(content)
    nodes, width = _Rewriting(model.graph).nodes(), _width(model.graph)
    used = {name for node in nodes for name in node.input}
    kept = [_placed(tensor, content, model_file.name) for tensor in model.graph.initializer if tensor.name in used]
    constants = [
        numpy_helper.from_array(np.full(_hidden_width(model.graph), value, dtype=np.float32), name)
        for name, value in ((_ONES, 1), (_ZEROS, 0))
        if name in used
    ]
    texts = ["texts", "tokens"]
    graph = helper.make_graph(
        nodes,
        f"{model.graph.name}, for GPUs",
        [helper.make_tensor_value_info(name, TensorProto.INT64, texts) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("token_embeddings", TensorProto.FLOAT, [*texts, width])],
        [*kept, *constants],
    )
    made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(made.SerializeToString(deterministic=True))


class _Rewriting:
    """Replaces the nodes that are for CPUs, or for one text."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._instead: dict[str, str] = {}  # what takes the place of a node's output

    def nodes(self) -> list[NodeProto]:
        """The nodes of the graph for GPUs, in order."""
        return [
            helper.make_node("Cast", ["attention_mask"], [_MASK], name=_MASK, to=TensorProto.INT32),
            *(made for node in self._graph.node for made in self._rewritten(node)),
        ]

    def _rewritten(self, given: NodeProto) -> Iterator[NodeProto]:
        node = NodeProto()
        node.CopyFrom(given)
        for place, name in enumerate(given.input):
            node.input[place] = self._instead.get(name, name)
        match node.op_type:
            case "DynamicQuantizeLinear" | "Squeeze":  # activations stay float32, and texts have an axis
                self._instead[node.output[0]] = node.input[0]
            case "ConstantOfShape":  # gain and bias of InstanceNormalization, one per token
                pass
            case "InstanceNormalization":
                [epsilon] = (attribute.f for attribute in node.attribute)
                inputs = [node.input[0], _ONES, _ZEROS]
                yield helper.make_node("LayerNormalization", inputs, node.output, name=node.name, epsilon=epsilon)
            case "MatMulIntegerToFloat":
                yield from _float_product(node)
            case "MultiHeadAttention":
                node.input.extend(["", _MASK])
                yield node
            case _:
                yield node


def _float_product(node: NodeProto) -> Iterator[NodeProto]:
    """The product with a float32 matrix. onnxruntime computes the first two nodes once, when it loads the model."""
    activations, weights, _, scales, _, _, bias = node.input
    integers, matrix, product = (f"{node.name}_{part}" for part in ("integers", "matrix", "product"))
    yield helper.make_node("Cast", [weights], [integers], name=integers, to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [integers, scales], [matrix], name=matrix)
    yield helper.make_node("MatMul", [activations, matrix], [product], name=product)
    yield helper.make_node("Add", [product, bias], node.output, name=node.name)


def _placed(tensor: TensorProto, content: bytes, name: str) -> TensorProto:
    """The tensor, with the place of its bytes in the model's file instead of the bytes."""
    if len(tensor.raw_data) < _COPIED:
        return tensor
    placed = TensorProto()
    placed.CopyFrom(tensor)
    external_data_helper.set_external_data(placed, name, content.index(tensor.raw_data), len(tensor.raw_data))
    placed.ClearField("raw_data")
    return placed


def _width(graph: onnx.GraphProto) -> int:
    return int(graph.output[0].type.tensor_type.shape.dim[-1].dim_value)


def _hidden_width(graph: onnx.GraphProto) -> int:
    [positions] = (tensor for tensor in graph.initializer if tensor.name == "positions")
    return int(positions.dims[1])


def write_graph(folder: Path) -> dict[str, dict[str, Any]]:
    """Write the graph for the model in a folder. Returns the entry "gpu_files" of encoder.json."""
    content = build_graph(folder / MODEL)
    (folder / GRAPH).write_bytes(content)
    return {GRAPH: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}}


def main() -> None:
    for folder in FOLDERS:
        file = folder / "encoder.json"
        settings = json.loads(file.read_text(encoding="utf-8"))
        settings["gpu_files"] = write_graph(folder)
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

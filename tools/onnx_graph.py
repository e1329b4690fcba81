"""Writes an ONNX graph node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"  # onnxruntime's own operators


class Graph:
    """Collects the nodes and stored tensors of an ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def store(self, name: str, array: npt.NDArray[Any]) -> str:
        """Keep a constant tensor in the model. Returns its name."""
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def store_raw(self, name: str, kind: int, shape: tuple[int, ...], content: bytes) -> str:
        """Keep a constant tensor whose bytes are given, for types that numpy lacks. Returns its name."""
        self.tensors.append(helper.make_tensor(name, kind, shape, content, raw=True))
        return name

    def add(self, operator: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node. Returns the names of its outputs."""
        name = f"{operator}_{len(self.nodes)}"
        results = [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, results, name=name, domain=domain, **attributes))
        return results

    def serialize(self, states: str, width: int, name: str, versions: tuple[int, int]) -> bytes:
        """The model: ``input_ids`` int64 (1, T) to ``token_embeddings`` float32 (T, width).

        Args:
            states: the name of the result.
            width: its last dimension.
            name: of the graph.
            versions: of ONNX's operators and of its format.
        """
        opset, ir_version = versions
        self.nodes.append(helper.make_node("Identity", [states], ["token_embeddings"]))
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])],
            [helper.make_tensor_value_info("token_embeddings", TensorProto.FLOAT, ["tokens", width])],
            self.tensors,
        )
        operators = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=operators, ir_version=ir_version)
        return bytes(model.SerializeToString(deterministic=True))

"""A small ONNX model that mixes tokens, in all shapes that encoders accept, and its tokenizer.

``python tests/core/tiny_onnx.py`` writes ``data/tiny-onnx/model.onnx``, which tests use where the package onnx is not
installed. Needs onnx.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

DIMENSION = 16
DATA = Path(__file__).parent / "data" / "tiny-onnx"
CONTEXT = 0.5  # share of the mean of all attended tokens in each token's vector
WORDS = (
    "the a of in at by on is are and or to for with from that this who which what when where how long small large "
    "owl owls heron herons ant ants bird birds fish water night day dark light hunt hunts live lives colony colonies "
    "stand still shallow deep active after before mouse mice tree trees forest river lake winter summer number sat"
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[Q] ", "[D] ")
Array = npt.NDArray[np.float32]


def vocabulary() -> dict[str, int]:
    letters = string.ascii_lowercase + string.digits
    pieces = [*SPECIAL, *string.punctuation, *letters, *(f"##{letter}" for letter in letters), *WORDS.split()]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def tokenizer() -> Tokenizer:
    """WordPiece like BERT's. Characters beyond ASCII are [UNK]."""
    ids = vocabulary()
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(list(SPECIAL))
    ends = [(name, ids[name]) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return made


def table() -> Array:
    """The vector of each token. [MASK] is like [SEP], which every text has, so that it decides no search."""
    rows = np.random.default_rng(0).normal(size=(len(vocabulary()), DIMENSION))
    rows[vocabulary()["[MASK]"]] = rows[vocabulary()["[SEP]"]]
    return rows.astype(np.float32)


def expected(ids: list[int], attended: int | None = None) -> Array:
    """What the model computes, shape (ids, dimension)."""
    rows = table()[ids]
    mixed = rows + CONTEXT * rows[:attended].mean(axis=0)
    unit: Array = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
    return unit


def model(
    inputs: tuple[str, ...] = ("input_ids", "attention_mask"), *, output: str = "float32", flat: bool = False
) -> Any:
    """An onnx.ModelProto.

    Args:
        inputs: which inputs it has. Those of other names, and token_type_ids, have no effect.
        output: "float32" or "float16".
        flat: whether the output is of shape (tokens, dimension), for one text.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    constants: dict[str, npt.NDArray[Any]] = {
        "table": table(),
        "share": np.array(CONTEXT, dtype=np.float32),
        "last": np.array([2], dtype=np.int64),
    }
    if "attention_mask" in inputs:
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
            helper.make_node("Mul", ["rows", "wide"], ["seen"]),
            helper.make_node("ReduceSum", ["seen", "middle"], ["sum"], keepdims=1),
            helper.make_node("ReduceSum", ["wide", "middle"], ["count"], keepdims=1),
            helper.make_node("Div", ["sum", "count"], ["mean"]),
        ]
        constants["middle"] = np.array([1], dtype=np.int64)
    else:
        nodes.append(helper.make_node("ReduceMean", ["rows"], ["mean"], axes=[1], keepdims=1))
    nodes += [
        helper.make_node("Mul", ["mean", "share"], ["context"]),
        helper.make_node("Add", ["rows", "context"], ["mixed"]),
        helper.make_node("ReduceL2", ["mixed"], ["length"], axes=[2], keepdims=1),
        helper.make_node("Div", ["mixed", "length"], ["unit"]),
    ]
    last = "unit"
    if flat:
        nodes.append(helper.make_node("Squeeze", [last, "first"], ["flat"]))
        constants["first"] = np.array([0], dtype=np.int64)
        last = "flat"
    kind = TensorProto.FLOAT16 if output == "float16" else TensorProto.FLOAT
    nodes.append(helper.make_node("Cast", [last], ["output"], to=kind))
    shape: list[str | int | None] = ["tokens", DIMENSION] if flat else ["batch", "tokens", DIMENSION]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in inputs],
        [helper.make_tensor_value_info("output", kind, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def write_folder(folder: Path, config: dict[str, Any], made: Any = None) -> Path:
    """A folder for OnnxEncoder.

    Args:
        folder: a new folder.
        config: what is in onnx_config.json.
        made: an onnx.ModelProto; by default the model of ``data/tiny-onnx``.
    """
    folder.mkdir(parents=True)
    content = (DATA / "model.onnx").read_bytes() if made is None else made.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "onnx_config.json").write_text(json.dumps(config))
    return folder


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    (DATA / "model.onnx").write_bytes(model().SerializeToString())

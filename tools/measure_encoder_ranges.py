"""Measures how large the numbers inside the bundled encoder become, for ``build_bundled_encoder.py``.

    python tools/measure_encoder_ranges.py FOLDER

Encodes passages of a collection in BEIR's format without rounding, and writes ``bundled_encoder_ranges.json``: for each
layer, the channels of the attention's normalized input that exceed what most stay below, with their largest magnitude,
and the hidden units with the largest values. One of these units is about 20 for [CLS], and nearly 0 for every other
token. Rounding it with the others would leave them few bits.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from build_bundled_encoder import (
    EASY_RANGE,
    HIDDEN,
    LAYERS,
    RANGES,
    build_model,
    build_tokenizer,
    find_source,
    load_weights,
)
from onnx import helper

from muvera_core.evaluation import read_beir

PASSAGES, TOKENS = 96, 256
WIDE_UNITS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a collection; its last passages are taken")
    texts = read_beir(parser.parse_args().folder).texts[-PASSAGES:]
    source = find_source()
    model = onnx.load_from_string(build_model(load_weights(source), "float32"))
    # Each layer normalizes before its attention and before its feed-forward part.
    inputs, activated = (
        [node.output[0] for node in model.graph.node if node.op_type == kind]
        for kind in ("InstanceNormalization", "Gelu")
    )
    asked = inputs[: 2 * LAYERS : 2] + activated
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in asked)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    largest = [np.zeros(1)] * len(asked)
    for encoding in build_tokenizer(source).encode_batch(texts):
        ids = np.array([encoding.ids[:TOKENS]])
        found = session.run(asked, {"input_ids": ids})
        largest = [
            np.maximum(before, np.abs(values[0]).max(axis=0)) for before, values in zip(largest, found, strict=True)
        ]
    layers = [
        {
            "inputs": {str(i): round(float(channels[i]), 1) for i in range(HIDDEN) if channels[i] >= EASY_RANGE + 0.05},
            "wide_units": sorted(np.argsort(-units, kind="stable")[:WIDE_UNITS].tolist()),
        }
        for channels, units in zip(largest[:LAYERS], largest[LAYERS:], strict=True)
    ]
    RANGES.write_text("[\n" + ",\n".join(json.dumps(layer) for layer in layers) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()

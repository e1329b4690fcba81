"""Finds out whether onnxruntime's 8-bit products overflow on this processor.

Without VNNI, x86 processors add pairs of products in 16 bits, which cannot hold 2 x 255 x 127. onnxruntime avoids that
if it is told to, by the session's option x64quantprecision. With some versions that takes twice the time on processors
that need no such care. The results are the same bit by bit.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime

# The ONNX model c = MatMulInteger(a, b), of any shape: a is uint8, b int8, c int32.
PRODUCT = (
    b'\x08\x08:>\n\x18\n\x01a\n\x01b\x12\x01c"\rMatMulInteger\x12\x01pZ\t\n\x01a\x12\x04\n\x02\x08\x02Z\t\n\x01b\x12\x04\n'
    b"\x02\x08\x03b\t\n\x01c\x12\x04\n\x02\x08\x06B\x04\n\x00\x10\x12"
)
# Rows, summands and columns: more than a register holds, so that the kernel of large products is used.
_SHAPE = (16, 256, 64)


@cache
def products_overflow() -> bool:
    """Whether a product of the largest 8-bit numbers is wrong."""
    n_rows, n_summands, n_columns = _SHAPE
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(PRODUCT, options, providers=["CPUExecutionProvider"])
    for largest in (127, -128):
        a = np.full((n_rows, n_summands), 255, dtype=np.uint8)
        b = np.full((n_summands, n_columns), largest, dtype=np.int8)
        [product] = session.run(None, {"a": a, "b": b})
        if (product != 255 * largest * n_summands).any():
            return True
    return False

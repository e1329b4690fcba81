"""Whether 8-bit products overflow on this processor, and what follows from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from muvera_core.encoders.onnx import session
from muvera_core.encoders.onnx.overflow import PRODUCT, products_overflow
from muvera_core.encoders.onnx.session import OnnxModel
from muvera_core.encoders.packaged.bundled import ASSETS
from muvera_core.encoders.text.layout import Piece

PRECISE = "session.x64quantprecision"


def states(n_tokens: int) -> npt.NDArray[np.float32]:
    ids = np.random.default_rng(n_tokens).integers(2000, 20_000, n_tokens).tolist()
    places = list(range(n_tokens))
    piece = Piece(ids, n_tokens, places, [(0, 0)] * n_tokens, {}, False)
    [found] = OnnxModel(Path(ASSETS) / "model.onnx").states([piece])
    return found


def test_the_probe_is_one_product() -> None:
    onnx = pytest.importorskip("onnx", reason="reading the probe needs onnx")
    model = onnx.load_from_string(PRODUCT)
    assert [node.op_type for node in model.graph.node] == ["MatMulInteger"]
    types = [tensor.type.tensor_type.elem_type for tensor in model.graph.input]
    assert types == [onnx.TensorProto.UINT8, onnx.TensorProto.INT8]


@pytest.mark.parametrize("overflows", [False, True])
def test_onnxruntime_is_told_to_be_careful_only_where_products_overflow(
    overflows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "products_overflow", lambda: overflows)
    options = session._session_options(exact_products=False)
    if overflows:
        assert options.get_session_config_entry(PRECISE) == "1"
    else:
        with pytest.raises(RuntimeError, match=PRECISE):
            options.get_session_config_entry(PRECISE)
    with pytest.raises(RuntimeError, match=PRECISE):
        session._session_options(exact_products=True).get_session_config_entry(PRECISE)


@pytest.mark.parametrize("n_tokens", [3, 40, 250])
def test_being_careful_changes_no_vector(n_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = states(n_tokens)
    monkeypatch.setattr(session, "products_overflow", lambda: True)
    np.testing.assert_array_equal(states(n_tokens), found)


def test_a_wrong_product_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Saturating(onnxruntime.InferenceSession):  # type: ignore[misc]
        def run(self, *arguments: object) -> list[npt.NDArray[np.int32]]:
            return [np.minimum(super().run(*arguments)[0], 32_767 * 128)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Saturating)
    assert products_overflow.__wrapped__()
    monkeypatch.undo()
    assert products_overflow.__wrapped__() is products_overflow()

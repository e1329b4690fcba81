"""The packaged encoders on a GPU. Without one, the graphs for GPUs run on the CPU, which computes the same."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from tiny_onnx import DIMENSION, write_folder

from muvera_core import MuveraIndex, TokenEmbeddings
from muvera_core.cli import main
from muvera_core.encoders import (
    BundledEncoder,
    MultilingualEncoder,
    default_encoder,
    load_encoder,
    named_encoder,
    packaged_encoder,
)
from muvera_core.encoders.onnx import session
from muvera_core.encoders.packaged import bundled
from muvera_core.encoders.packaged.encoder import PackagedEncoder
from muvera_core.errors import DeviceError, EncoderError, InvalidInputError
from muvera_core.serving.plan import WorkerPlan
from muvera_core.serving.settings import ServiceSettings

needs_no_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime is built for CUDA"
)
TEXTS = [
    "who wrote Faust?",
    "",
    "Water boils at 100 °C at sea level, and at 93 °C in Denver. " * 60,  # in windows
    "猫头鹰在夜间捕猎",  # unknown to the bundled encoder
    "An owl",
    *(f"Owl {number} hunts at night and eats {number} mice." for number in range(40)),  # more than a batch
]
# Cosine with the CPU's vectors, of the worst and of the average token.
CLOSE = {BundledEncoder: (0.98, 0.995), MultilingualEncoder: (0.999, 0.9999)}


@pytest.fixture(params=["simulated", "cuda"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device "cuda": a real one, or the CPU under its name."""
    if request.param == "simulated":
        monkeypatch.setattr(session, "_CUDA", "CPUExecutionProvider")
    else:
        try:
            BundledEncoder(device="cuda")
        except DeviceError as error:
            pytest.skip(f"needs a GPU and onnxruntime-gpu: {error}")
    return "cuda"


@pytest.fixture(params=[BundledEncoder, MultilingualEncoder])
def kind(request: pytest.FixtureRequest) -> type[PackagedEncoder]:
    if request.param is MultilingualEncoder:
        pytest.importorskip("muvera_multilingual", reason="needs muvera-core[multilingual]")
    chosen: type[PackagedEncoder] = request.param
    return chosen


def cosines(one: TokenEmbeddings, other: TokenEmbeddings) -> np.ndarray:
    assert one.offsets.tolist() == other.offsets.tolist()
    found: np.ndarray = (one.vectors * other.vectors).sum(axis=1)
    return found


@pytest.mark.filterwarnings("ignore::muvera_core.errors.UnknownTextWarning")
@pytest.mark.parametrize("what", ["encode_documents", "encode_queries"])
def test_the_vectors_are_close_to_those_of_the_cpu(kind: Any, gpu: str, what: str) -> None:
    texts = TEXTS if what == "encode_documents" else [text[:300] for text in TEXTS]
    on_cpu, on_gpu = (getattr(kind(device=device), what)(texts) for device in ("cpu", gpu))
    worst, mean = CLOSE[kind]
    found = cosines(on_cpu, on_gpu)
    assert found.min() > worst
    assert found.mean() > mean


@pytest.mark.filterwarnings("ignore::muvera_core.errors.UnknownTextWarning")
def test_texts_of_other_lengths_in_the_batch_change_only_rounding(kind: Any, gpu: str) -> None:
    encoder = kind(device=gpu)
    together = encoder.encode_documents(TEXTS[:6])
    alone = TokenEmbeddings.concatenate([encoder.encode_documents([text]) for text in TEXTS[:6]])
    assert cosines(together, alone).min() > 0.999


def test_texts_are_encoded_in_batches_by_one_thread(kind: Any, gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, sizes = kind(device=gpu), list[int]()
    states = session.OnnxModel.states

    def noting(model: session.OnnxModel, pieces: list[Any]) -> Any:
        sizes.append(len(pieces))
        return states(model, pieces)

    monkeypatch.setattr(session.OnnxModel, "states", noting)
    encoder.encode_documents(TEXTS[-40:])
    assert sizes == [32, 8]
    assert encoder._engine.num_threads == 1


def test_narrow_vectors_are_of_unit_length(kind: Any, gpu: str) -> None:
    dimension = 64 if kind is BundledEncoder else 256
    found = kind(dimension=dimension, device=gpu).encode_documents(TEXTS[-3:]).vectors
    assert found.shape[1] == dimension
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_the_device_is_no_part_of_the_fingerprint_or_the_settings(kind: Any, gpu: str) -> None:
    on_cpu, on_gpu = kind(), kind(device=gpu)
    assert (on_gpu.fingerprint, on_gpu.settings) == (on_cpu.fingerprint, on_cpu.settings)


def test_an_index_that_was_made_on_the_cpu_is_searched_on_the_gpu(gpu: str, tmp_path: Path) -> None:
    texts = ["Owls hunt at night.", "Rye bread keeps for longer than white bread.", "Water boils at 100 degrees."]
    with MuveraIndex.create(tmp_path / "index") as index:
        index.add(texts, ids=["owls", "bread", "water"])
    with MuveraIndex.open(tmp_path / "index", BundledEncoder(device=gpu)) as index:
        hits = index.search("Which birds fly in the dark?", 3)
        # The same text has almost the same vectors, whatever made them.
        same = index.search(texts[0], 1)[0]
    assert hits[0].id == "owls"
    assert same.normalized_score == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda encoder: pickle.loads(pickle.dumps(encoder))])  # noqa: S301
def test_a_copy_stays_on_its_device(copied: Any, kind: Any, gpu: str) -> None:
    given = kind(device=gpu)
    twin = copied(given)
    assert twin._device == gpu
    np.testing.assert_array_equal(twin.encode_queries(["An owl"]).vectors, given.encode_queries(["An owl"]).vectors)


@pytest.mark.parametrize("damage", ["missing", "cut short", "overwritten", "not described"])
def test_damaged_files_are_reported(damage: str, gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "assets"
    shutil.copytree(bundled.ASSETS, folder)
    graph, settings = folder / "gpu.onnx", folder / "encoder.json"
    if damage == "missing":
        graph.unlink()
    elif damage == "not described":
        settings.write_text(settings.read_text(encoding="utf-8").replace("gpu_files", "others"), encoding="utf-8")
    else:
        graph.write_bytes(graph.read_bytes()[:-10] if damage == "cut short" else bytes(graph.stat().st_size))
    monkeypatch.setattr(bundled, "ASSETS", folder)
    BundledEncoder()  # needs none of these
    with pytest.raises(EncoderError, match="reinstall muvera-core"):
        BundledEncoder(device=gpu)


@pytest.fixture(scope="module")
def makers(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Everything that makes an encoder on a device."""
    settings = {"model_type": "ColBERT", "embedding_dim": DIMENSION, "muvera": {"version": 1}}
    folder = write_folder(tmp_path_factory.mktemp("models") / "tiny", settings)
    fingerprint = BundledEncoder(dimension=64).fingerprint
    return [
        lambda device: BundledEncoder(device=device),
        lambda device: default_encoder(None, device),
        lambda device: default_encoder(fingerprint, device),
        lambda device: packaged_encoder("bundled", fingerprint, device),
        lambda device: named_encoder("bundled", None, device),
        lambda device: named_encoder(folder, None, device),
        lambda device: load_encoder(folder, None, device),
        lambda device: WorkerPlan("none", ServiceSettings(), encoder_device=device)._encoder(),
        lambda device: WorkerPlan("none", ServiceSettings(), encoder="bundled", encoder_device=device)._encoder(),
        lambda device: WorkerPlan("none", ServiceSettings(), encoder=str(folder), encoder_device=device)._encoder(),
    ]


@pytest.mark.parametrize("which", range(10))
def test_unknown_names_of_devices_are_refused(which: int, makers: list[Any]) -> None:
    with pytest.raises(InvalidInputError, match="device must be 'cpu', 'cuda', 'cuda:N'"):
        makers[which]("gpu")


@needs_no_cuda
@pytest.mark.parametrize("which", range(10))
def test_a_device_that_onnxruntime_lacks_is_refused(which: int, makers: list[Any]) -> None:
    with pytest.raises(DeviceError, match=r"needs onnxruntime's CUDAExecutionProvider.*pip uninstall onnxruntime"):
        makers[which]("cuda:1")


def test_the_name_of_the_cpu_s_provider_is_the_cpu() -> None:
    named, usual = BundledEncoder(device="CPUExecutionProvider"), BundledEncoder()
    np.testing.assert_array_equal(named.encode_queries(["An owl"]).vectors, usual.encode_queries(["An owl"]).vectors)


def test_a_gpu_that_cannot_start_is_an_error_and_nothing_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class FallenBack(onnxruntime.InferenceSession):  # type: ignore[misc]
        """What onnxruntime does on a machine with CUDA's libraries and without a driver."""

        def __init__(self, file: Path, options: Any, providers: list[Any]) -> None:
            print("*************** EP Error ***************")
            super().__init__(file, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", FallenBack)
    with pytest.raises(DeviceError, match=r"could not start it for device 'cuda'.*onnxruntime-gpu\[cuda,cudnn\]"):
        BundledEncoder(device="cuda")
    assert capsys.readouterr().out == ""


def commands_with_an_encoder() -> list[str]:
    found = {name: main.commands[name].params for name in main.commands}
    return sorted(name for name, params in found.items() if any("--encoder" in param.opts for param in params))


@pytest.fixture(scope="module")
def index_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexes") / "index"
    with MuveraIndex.create(folder) as index:
        index.add(["Owls hunt at night."])
    return folder


@pytest.mark.parametrize("command", commands_with_an_encoder())
def test_each_command_with_an_encoder_passes_its_device_on(command: str, index_folder: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text("What do owls do?\n", encoding="utf-8")
    documents = tmp_path / "documents.json"
    documents.write_text(json.dumps([{"page_content": "Owls", "id": "1"}]), encoding="utf-8")
    more: dict[str, list[Any]] = {
        "search": ["owls"],
        "evaluate": [questions],
        "index": [questions],
        "import": [documents],
        "serve": ["--port", 0],
    }
    arguments = [command, index_folder, *more.get(command, []), "--encoder-device", "gpu"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1, result.output
    assert "device must be 'cpu', 'cuda', 'cuda:N'" in result.output


def test_the_command_line_searches_on_the_gpu(gpu: str, index_folder: Path) -> None:
    result = CliRunner().invoke(main, ["search", str(index_folder), "owls", "--encoder-device", gpu])
    assert result.exit_code == 0, result.output
    assert "Owls hunt at night." in result.output


def test_a_new_index_of_narrow_vectors_is_made_on_the_gpu(
    gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[str]()
    load = PackagedEncoder._load

    def noting(encoder: PackagedEncoder) -> None:
        made.append(encoder._device)
        load(encoder)

    monkeypatch.setattr(PackagedEncoder, "_load", noting)
    (tmp_path / "owls.txt").write_text("Owls hunt at night.", encoding="utf-8")
    arguments = ["index", tmp_path / "index", tmp_path / "owls.txt", "--dimension", 32, "--encoder-device", gpu]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert set(made) == {gpu}


class TestGraphs:
    """The files that tools/build_gpu_graphs.py writes."""

    @pytest.fixture
    def tool(self) -> Any:
        pytest.importorskip("onnx", reason="needs muvera-core[export]")
        import build_gpu_graphs

        return build_gpu_graphs

    @pytest.fixture(params=[0, 1])
    def folder(self, request: pytest.FixtureRequest, tool: Any) -> Path:
        chosen: Path = tool.FOLDERS[request.param]
        return chosen

    def test_the_script_gives_the_graphs_that_ship(self, tool: Any, folder: Path, tmp_path: Path) -> None:
        import onnx

        settings = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        (tmp_path / "model.onnx").symlink_to(folder / "model.onnx")
        entry = tool.write_graph(tmp_path)
        made = tmp_path / "gpu.onnx"
        if settings["built_with"]["onnx"] == onnx.__version__:
            assert made.read_bytes() == (folder / "gpu.onnx").read_bytes()
            assert settings["gpu_files"] == entry
        assert settings["gpu_files"].keys() == {"gpu.onnx"}
        assert settings["gpu_files"]["gpu.onnx"]["bytes"] == (folder / "gpu.onnx").stat().st_size < 100_000

    def test_onnxruntime_has_all_operators_on_gpus(self, tool: Any, folder: Path) -> None:
        """Operators that its list of CUDA's kernels (docs/OperatorKernels.md) lacks are computed by the CPU: slowly."""
        import onnx

        nodes = onnx.load(folder / "gpu.onnx", load_external_data=False).graph.node
        assert not {node.op_type for node in nodes} & {"DynamicQuantizeLinear", "MatMulIntegerToFloat"}
        assert {node.op_type for node in nodes} <= {
            *("Add", "Cast", "Div", "Gather", "Identity", "LayerNormalization", "MatMul", "Mul", "ReduceL2", "Shape"),
            *("Slice", "Split", "Sub", "Unsqueeze"),
            *("GatherBlockQuantized", "Gelu", "MatMulNBits", "MultiHeadAttention", "SkipLayerNormalization"),
        }

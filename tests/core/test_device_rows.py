"""Token vectors that are on a GPU already are not sent there again, and give the encodings of those of the host."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from gpus import Gpu

from muvera_core import (
    FDEConfig,
    FixedDimensionalEncoder,
    LearnedSetEncoder,
    LearnedSetEncoderConfig,
    MuveraIndex,
    TokenEmbeddings,
)
from muvera_core.cuda.device import CudaDevice, Workspace
from muvera_core.cuda.set_encoders import on_gpu
from muvera_core.device_rows import DeviceRows
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.errors import InvalidInputError
from muvera_core.stage_one import StageOne
from muvera_core.storage.token_codec import TokenCodec, TokenPrecision

D = 16
FDE = FDEConfig(dimension=D, num_repetitions=8, num_simhash_projections=3, projection_dimension=8)
pytestmark = pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="NumPy before 2.1 cannot copy arrays from a GPU"
)


class OnGpu:
    """An array that says that it is in the memory of a GPU. Only DLPack reads it."""

    def __init__(self, array: np.ndarray, gpu: int = 0) -> None:
        self.array, self.gpu, self.shape = array, gpu, array.shape

    def __array__(self, *args: Any, **settings: Any) -> np.ndarray:
        raise TypeError("can't convert device memory to numpy")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.gpu

    def __dlpack__(self, **settings: Any) -> Any:
        return self.array.__dlpack__(**settings)

    def on_host(self) -> np.ndarray:
        """What the simulated GPU reads."""
        return self.array


def random_arrays(seed: int, lengths: Sequence[int], dimension: int = D, dtype: Any = np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((n, dimension)) for n in lengths]
    return [(array / np.linalg.norm(array, axis=1, keepdims=True)).astype(dtype) for array in arrays]


def there(arrays: Sequence[np.ndarray], gpu: Gpu | None = None) -> list[Any]:
    """Arrays in the memory of the GPU."""
    if gpu is None or gpu.is_simulated:
        return [OnGpu(array) for array in arrays]
    return [gpu.cupy.asarray(array) for array in arrays]


def kept(lengths: Sequence[int] = (3, 1, 4, 2)) -> TokenEmbeddings:
    return TokenEmbeddings.from_list(there(random_arrays(0, lengths)), keep_on_gpu=True)


def read(embeddings: TokenEmbeddings) -> np.ndarray:
    """The vectors that a GPU would read."""
    assert embeddings.on_gpu is not None
    return np.concatenate([run.array.array[run.start : run.stop] for run in embeddings.on_gpu.runs])


class TestRows:
    def test_arrays_are_kept_only_if_that_is_asked(self) -> None:
        given = there(random_arrays(0, [3, 1]))
        assert TokenEmbeddings.from_list(given).on_gpu is None
        assert TokenEmbeddings.from_list(given, keep_on_gpu=True).on_gpu is not None

    def test_arrays_of_the_host_are_not_on_a_gpu(self) -> None:
        arrays = random_arrays(0, [3, 1])
        assert TokenEmbeddings.from_list(arrays, keep_on_gpu=True).on_gpu is None
        assert TokenEmbeddings.from_list([arrays[0], OnGpu(arrays[1])], keep_on_gpu=True).on_gpu is None
        assert TokenEmbeddings.from_list([], keep_on_gpu=True).on_gpu is None

    def test_arrays_that_do_not_say_how_many_rows_they_have_are_taken_from_the_host(self) -> None:
        arrays = there(random_arrays(0, [3, 1]))
        del arrays[1].shape
        embeddings = TokenEmbeddings.from_list(arrays, keep_on_gpu=True)
        assert (embeddings.lengths.tolist(), embeddings.on_gpu) == ([3, 1], None)

    def test_arrays_of_two_gpus_are_not_on_one(self) -> None:
        one, other = random_arrays(0, [3, 1])
        assert TokenEmbeddings.from_list([OnGpu(one, 0), OnGpu(other, 1)], keep_on_gpu=True).on_gpu is None

    def test_the_vectors_are_checked_and_stored_from_the_host(self) -> None:
        with pytest.raises(InvalidInputError, match="item 0 has NaN"):
            TokenEmbeddings.from_list([OnGpu(np.full((1, 3), np.nan, np.float32))], keep_on_gpu=True)
        embeddings = kept()
        assert isinstance(embeddings.vectors, np.ndarray)
        np.testing.assert_array_equal(read(embeddings), embeddings.vectors)

    @pytest.mark.parametrize(("start", "stop"), [(0, 4), (0, 1), (1, 3), (3, 4), (2, 2)])
    def test_parts_keep_their_rows(self, start: int, stop: int) -> None:
        part = kept().part(start, stop)
        assert [row.tolist() for row in part] == [kept()[i].tolist() for i in range(start, stop)]
        assert part.on_gpu is not None
        if start < stop:
            np.testing.assert_array_equal(read(part), part.vectors)

    @pytest.mark.parametrize("places", [[0], [3, 1], [2, 2, 0], [0, 1, 2, 3]])
    def test_taken_texts_keep_their_rows(self, places: list[int]) -> None:
        taken = kept().take(places)
        np.testing.assert_array_equal(taken.vectors, np.concatenate([kept()[place] for place in places]))
        np.testing.assert_array_equal(read(taken), taken.vectors)

    def test_neighbours_in_an_array_are_one_run(self) -> None:
        [whole] = there(random_arrays(0, [10]))
        rows = DeviceRows.of([whole])
        embeddings = TokenEmbeddings(whole, np.array([0, 3, 4, 8, 10])).with_gpu(rows)
        in_order, turned = embeddings.take([0, 1, 2]), embeddings.take([1, 0])
        assert in_order.on_gpu is not None
        assert turned.on_gpu is not None
        assert [(run.start, run.stop) for run in in_order.on_gpu.runs] == [(0, 8)]
        assert [(run.start, run.stop) for run in turned.on_gpu.runs] == [(3, 4), (0, 3)]

    def test_joined_embeddings_keep_their_rows_if_all_have_some(self) -> None:
        host = TokenEmbeddings.from_list(random_arrays(1, [2]))
        joined = TokenEmbeddings.concatenate([kept(), kept((2,))])
        np.testing.assert_array_equal(read(joined), joined.vectors)
        assert TokenEmbeddings.concatenate([kept(), host]).on_gpu is None
        assert TokenEmbeddings.concatenate([host]).on_gpu is None

    def test_rows_of_another_gpu_or_rounding_are_not_joined(self) -> None:
        one, other = (DeviceRows.of([OnGpu(array, gpu)]) for gpu, array in enumerate(random_arrays(0, [1, 1])))
        assert one is not None
        assert DeviceRows.join([one, other]) is None
        assert DeviceRows.join([one, one.rounded("int8")]) is None
        assert DeviceRows.join([]) is None
        with pytest.raises(ValueError, match="already rounded to int8"):
            one.rounded("int8").rounded("float16")

    def test_copies_in_other_processes_do_not_have_them(self) -> None:
        assert pickle.loads(pickle.dumps(kept())).on_gpu is None  # noqa: S301
        assert copy.deepcopy(kept()).on_gpu is None
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(kept())).vectors, kept().vectors)  # noqa: S301


class Staged:
    """Notes the token embeddings that stage one encodes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.embeddings: list[TokenEmbeddings] = []
        encode = StageOne.encode_documents

        def noting(stage_one: StageOne, embeddings: TokenEmbeddings) -> Any:
            self.embeddings.append(embeddings)
            return encode(stage_one, embeddings)

        monkeypatch.setattr(StageOne, "encode_documents", noting)

    @property
    def rows(self) -> list[DeviceRows | None]:
        return [embeddings.on_gpu for embeddings in self.embeddings]


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> Staged:
    return Staged(monkeypatch)


def an_index(**options: Any) -> MuveraIndex:
    return MuveraIndex.create(None, PrecomputedEmbeddings(D, "random"), FDE, **options)


class TestIndex:
    """From the caller's arrays to stage one."""

    @pytest.mark.parametrize("precision", ["int8", "float16"])
    def test_given_arrays_reach_stage_one(self, staged: Staged, precision: TokenPrecision) -> None:
        arrays = random_arrays(0, [3, 1] * 40)
        with an_index(token_precision=precision) as index:
            index.add_embeddings(there(arrays))
        assert sum(len(embeddings) for embeddings in staged.embeddings) == 80
        assert {rows and rows.rounding for rows in staged.rows} == {precision}
        np.testing.assert_array_equal(np.concatenate([read(e) for e in staged.embeddings]), np.concatenate(arrays))

    @pytest.mark.parametrize("precision", ["8bit", "4bit", "2bit"])
    def test_rotated_vectors_are_those_of_the_host(self, staged: Staged, precision: TokenPrecision) -> None:
        with an_index(token_precision=precision) as index:
            index.add_embeddings(there(random_arrays(0, [3, 1])))
        assert staged.rows == [None]

    @pytest.mark.parametrize("options", [{"pool_factor": 2}, {"keep_tokens": 0.5}])
    def test_reduced_tokens_are_those_of_the_host(self, staged: Staged, options: dict[str, Any]) -> None:
        pytest.importorskip("scipy", reason="needs muvera-core[pooling]")
        with an_index(**options) as index:
            index.add_embeddings(there(random_arrays(0, [8, 6])))
        assert staged.rows == [None]

    def test_what_an_encoder_leaves_on_the_gpu_reaches_stage_one(self, staged: Staged) -> None:
        class Encoder(PrecomputedEmbeddings):
            def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
                return TokenEmbeddings.from_list(there(random_arrays(len(texts), [2] * len(texts))), keep_on_gpu=True)

        with MuveraIndex.create(None, Encoder(D, "random"), FDE) as index:
            index.add(["one", "two", "one"])  # the same text is encoded once
        assert [rows is not None for rows in staged.rows] == [True, True]
        for embeddings in staged.embeddings:
            np.testing.assert_allclose(read(embeddings), embeddings.vectors, atol=0.01)  # rounded

    def test_the_arrays_are_free_when_the_documents_are_written(self) -> None:
        arrays = there(random_arrays(0, [3, 1]))
        alive = [weakref.ref(array) for array in arrays]
        with an_index() as index:
            index.add_embeddings(arrays)
            del arrays
            assert [array() for array in alive] == [None, None]


@pytest.mark.parametrize("dimension", [1, 2, 33, 128])
@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_the_gpu_rounds_as_the_store_does(gpu: Gpu, precision: TokenPrecision, dimension: int) -> None:
    from muvera_core.cuda.set_encoders import CudaFixedDimensionalEncoder

    rng = np.random.default_rng(dimension)
    vectors = (rng.standard_normal((37, dimension)) * 10.0 ** rng.integers(-6, 4, (37, 1))).astype(np.float32)
    vectors[5], vectors[6, 0] = 0, 1e-30
    if precision == "int8":
        vectors[7] = -127 * np.linspace(0, 1, dimension) / 2  # ties, and zeros with a sign
    codec, offsets = TokenCodec(precision, dimension), np.array([0, 37])
    expected = codec.decode(codec.encode(vectors, offsets), offsets)
    config = FDEConfig(dimension=dimension, num_repetitions=1, num_simhash_projections=1, projection_dimension=None)
    device = CudaDevice(0)
    encoder = CudaFixedDimensionalEncoder(FixedDimensionalEncoder(config), device)
    embeddings = TokenEmbeddings.from_list(there([vectors[:20], vectors[20:]], gpu), keep_on_gpu=True)
    assert embeddings.on_gpu is not None
    stored = TokenEmbeddings(expected, offsets).with_gpu(embeddings.on_gpu.rounded(precision))  # type: ignore[arg-type]
    with device.workspace() as workspace:
        got = workspace.receive(encoder._on_gpu(stored, 0, 37, workspace))
    assert got.tobytes() == expected.tobytes()  # bit by bit


@cache
def set_encoder(name: str) -> Any:
    if name == "learned":
        documents = TokenEmbeddings.from_list(random_arrays(1, [4] * 200))
        return LearnedSetEncoder.fit(
            documents, LearnedSetEncoderConfig(D, 16, num_features=64, num_anchors=32, num_query_tokens=64)
        )
    if name == "centred":
        return FixedDimensionalEncoder(replace(FDE, center=True), mean=np.full(D, 0.01, dtype=np.float32))
    return FixedDimensionalEncoder(FDE if name == "projected" else replace(FDE, projection_dimension=None))


@pytest.mark.parametrize("name", ["projected", "plain", "centred", "learned"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_encodings_are_those_of_the_host_without_a_copy(
    gpu: Gpu, name: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = random_arrays(2, [3, 1, 40, 7], dtype=dtype)
    encoder = on_gpu(set_encoder(name), CudaDevice(0))
    from_host = encoder.encode_documents(TokenEmbeddings.from_list(arrays))
    sent = list[int]()
    monkeypatch.setattr(Workspace, "send_to", lambda *arguments: sent.append(1))
    from_gpu = encoder.encode_documents(TokenEmbeddings.from_list(there(arrays, gpu), keep_on_gpu=True))
    np.testing.assert_array_equal(from_gpu, from_host)
    assert not sent


@pytest.mark.usefixtures("gpu")
def test_vectors_of_another_gpu_are_sent() -> None:
    arrays = random_arrays(2, [3, 1])
    encoder = on_gpu(FixedDimensionalEncoder(FDE), CudaDevice(0))
    elsewhere = TokenEmbeddings.from_list([OnGpu(array, 1) for array in arrays], keep_on_gpu=True)
    expected = encoder.encode_documents(TokenEmbeddings.from_list(arrays))
    np.testing.assert_array_equal(encoder.encode_documents(elsewhere), expected)


def test_an_index_on_the_gpu_does_not_depend_on_the_way(gpu: Gpu) -> None:
    arrays = random_arrays(3, [5, 9, 1, 30, 2, 2])

    def encodings(given: list[Any]) -> np.ndarray:
        with an_index(device="cuda") as index:
            index.add_embeddings(given, ids=list("abcdef"))
            candidates = index.engine.collection.stage_one.candidates
            return candidates.vectors(candidates.keys())

    np.testing.assert_array_equal(encodings(arrays), encodings(there(arrays, gpu)))


def test_pytorch_s_stream_is_waited_for() -> None:
    """Tensors that PyTorch is still computing when they are given."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU")
    encoder = on_gpu(FixedDimensionalEncoder(FDE), CudaDevice(0))
    slow = torch.randn(4096, 4096, device="cuda")
    for _ in range(20):
        slow = (slow @ slow).clamp(-1, 1)
    tensor = torch.nn.functional.normalize(slow[:64, :D] + torch.eye(64, D, device="cuda"), dim=1)
    rows = DeviceRows.of([tensor])
    host = TokenEmbeddings(np.ones((64, D), dtype=np.float32), np.array([0, 64]))  # without waiting for the tensor
    from_gpu = encoder.encode_documents(host.with_gpu(rows))
    expected = encoder.encode_documents(TokenEmbeddings(tensor.cpu().numpy(), np.array([0, 64])))
    np.testing.assert_array_equal(from_gpu, expected)

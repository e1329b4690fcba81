"""A CUDA GPU: which one to use, its memory, and a stream with buffers for each thread that works on it."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from muvera_core.batches import runs_by_size
from muvera_core.errors import (
    DeviceError,
    DeviceFallbackWarning,
    InvalidInputError,
    MissingExtraError,
    MuveraError,
)
from muvera_core.validation import counted, shown

if TYPE_CHECKING:
    import types

# The kernels use matrix instructions that came with compute capability 8.0.
MIN_COMPUTE_CAPABILITY = 80
# An array, or several arrays that are laid end to end.
Sent = npt.NDArray[Any] | Sequence[npt.NDArray[Any]]
_NAME = re.compile(r"cuda(?::(\d{1,4}))?")
_ALIGNMENT = 256
# Larger arrays are copied in pieces of this many bytes. While one is copied, the CPU handles the one before.
_PIECE = 8 << 20
# Bytes of GPU memory that a workspace keeps for small, short-lived arrays.
_SCRATCH = 8 << 20


def open_device(name: str) -> CudaDevice | None:
    """Open the device that a user asked for.

    Args:
        name: "cpu"; "cuda" or "cuda:N", a GPU that must work; or "auto", which takes the first GPU, or the CPU with a
            ``DeviceFallbackWarning`` if no GPU can be used.

    Returns:
        The GPU; None for the CPU.

    Raises:
        InvalidInputError: another name.
        MissingExtraError: CuPy is not installed.
        DeviceError: there is no such GPU, its driver does not work, or it is too old.
    """
    if name == "cpu":
        return None
    if name == "auto":
        try:
            return CudaDevice(0)
        except (MissingExtraError, DeviceError) as error:
            warnings.warn(f"searching on the CPU: {error}", DeviceFallbackWarning, stacklevel=4)
            return None
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise InvalidInputError(f"device must be 'cpu', 'cuda', 'cuda:N' or 'auto', got {shown(name)}")
    return CudaDevice(int(match[1] or 0))


class CudaDevice:
    """One GPU, with its own memory pool.

    Work is done within ``workspace()``, which no other thread uses at the same time.
    """

    def __init__(self, number: int) -> None:
        """Open the GPU with this number. Raises the errors of ``open_device``."""
        self.number = number
        self.cupy = _import_cupy()
        with _device_errors(f"cuda:{number}"):
            n_gpus = self.cupy.cuda.runtime.getDeviceCount()
            if number >= n_gpus:
                raise DeviceError(f"there is no cuda:{number}: CUDA finds {counted(n_gpus, 'GPU')}, numbered from 0")
            gpu = self.cupy.cuda.Device(number)
            if int(gpu.compute_capability) < MIN_COMPUTE_CAPABILITY:
                raise DeviceError(
                    f"cuda:{number} has compute capability {gpu.compute_capability}, but the kernels need "
                    f"{MIN_COMPUTE_CAPABILITY} (Ampere) or more: use device='cpu'"
                )
            self.n_multiprocessors = int(gpu.attributes["MultiProcessorCount"])
        self._pool = self.cupy.cuda.MemoryPool()
        self._pinned = self.cupy.cuda.PinnedMemoryPool()
        self._idle: list[Workspace] = []
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The name that ``open_device`` takes, with the number."""
        return f"cuda:{self.number}"

    def free_bytes(self) -> int:
        """GPU memory that no program holds."""
        with _device_errors(self.name), self.cupy.cuda.Device(self.number):
            return int(self.cupy.cuda.runtime.memGetInfo()[0])

    @property
    def n_bytes(self) -> int:
        """GPU memory of the pool, in use or kept for later."""
        with _device_errors(self.name), self.cupy.cuda.Device(self.number):
            return int(self._pool.total_bytes())

    def errors(self) -> AbstractContextManager[None]:
        """Turns the errors of CUDA and CuPy into a DeviceError."""
        return _device_errors(self.name)

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """Take a workspace, and set CuPy to its GPU, memory pool and stream.

        Raises:
            DeviceError: CuPy or CUDA raised an error.
        """
        with (
            _device_errors(self.name),
            self.cupy.cuda.Device(self.number),
            self.cupy.cuda.using_allocator(self._pool.malloc),
        ):
            with self._lock:
                workspace = self._idle.pop() if self._idle else None
            workspace = workspace or Workspace(self)
            try:
                with workspace.stream:
                    yield workspace
                    workspace.reset()
            except BaseException:
                with suppress(Exception):  # its buffers may only be reused when the GPU has finished with them
                    workspace.stream.synchronize()
                raise
            with self._lock:
                self._idle.append(workspace)

    def pinned(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        """Host memory that the GPU reads and writes by itself, while the CPU does something else."""
        memory = self._pinned.malloc(n_bytes)
        return np.frombuffer(memory, dtype=np.uint8, count=n_bytes)

    def free_unused(self) -> None:
        """Free the memory that the pool keeps for later. Waits for all work on the GPU."""
        with _device_errors(self.name), self.cupy.cuda.Device(self.number):
            self._pool.free_all_blocks()

    def release(self) -> None:
        """Free the memory that is not in use, for other indexes and programs."""
        with _device_errors(self.name), self.cupy.cuda.Device(self.number):
            with self._lock:
                self._idle.clear()
            self._pool.free_all_blocks()
            self._pinned.free_all_blocks()


class Workspace:
    """A CUDA stream, and buffers through which arrays are copied to the GPU and back.

    Attributes:
        device: the GPU.
        n_sent: number of calls of ``send``.
        stream: the CuPy stream.
    """

    def __init__(self, device: CudaDevice) -> None:
        self.device = device
        self.n_sent = 0
        # Two of each, so that one can be filled while the other is copied.
        self._outgoing = [_Buffer(device), _Buffer(device)]
        self._incoming = [_Buffer(device), _Buffer(device)]
        self.stream = device.cupy.cuda.Stream(non_blocking=True)
        with self.stream:  # the pool keeps the memory of each stream apart
            self._scratch = device.cupy.empty(_SCRATCH, dtype=np.uint8)
        self._scratch_at, self._used = int(self._scratch.data.ptr), 0  # bytes of ``_scratch``
        self._overflow: list[Any] = []

    def allocate(self, n_bytes: int) -> int:
        """Address of ``n_bytes`` of GPU memory, a multiple of 256. It is valid until ``reset``."""
        used = self._used + -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
        if used > _SCRATCH:
            self._overflow.append(self.device.cupy.empty(n_bytes, dtype=np.uint8))
            return int(self._overflow[-1].data.ptr)
        address, self._used = self._scratch_at + self._used, used
        return address

    @property
    def used(self) -> tuple[int, int]:
        """What ``allocate`` has given so far, for ``free_from``."""
        return self._used, len(self._overflow)

    def free_from(self, used: tuple[int, int]) -> None:
        """Let ``allocate`` give the memory again that it gave after ``used`` was read.

        Work on the stream that still uses it comes before new work.
        """
        self._used = used[0]
        del self._overflow[used[1] :]

    def reset(self) -> None:
        """``free_from`` the beginning."""
        self.free_from((0, 0))

    def send(self, *arrays: Sent) -> list[int]:
        """Copy arrays to the GPU in one transfer. Arrays that are given as one sequence are laid end to end.

        Returns:
            Their addresses on the GPU, multiples of 256. They are valid until the call after the next.
        """
        self.n_sent += 1
        self._outgoing.reverse()
        return self._outgoing[0].send(arrays, self.stream)

    def send_to(self, target: Any, array: npt.NDArray[Any]) -> None:
        """Copy an array to a contiguous GPU array of the same size and type."""
        self.write([int(target.data.ptr)], [array])

    def write(self, targets: Sequence[int], arrays: Sequence[npt.NDArray[Any]]) -> None:
        """Copy arrays to addresses on the GPU. Small ones are sent in one transfer."""
        pieces, addresses = [], []
        for address, array in zip(targets, arrays, strict=True):
            for piece in _pieces(np.ascontiguousarray(array)):
                pieces.append(piece)
                addresses.append(address)
                address += len(piece)
        for start, end in runs_by_size(np.array([len(piece) for piece in pieces], dtype=np.int64), _PIECE):
            sources = self.send(*pieces[start:end])
            for address, source, piece in zip(addresses[start:end], sources, pieces[start:end], strict=True):
                self.copy(address, source, len(piece))

    def copy(self, target: int, source: int, n_bytes: int) -> None:
        """Copy bytes from one address on the GPU to another."""
        _copy(self.device.cupy, target, source, n_bytes, self.stream)

    def receive(self, array: Any) -> npt.NDArray[Any]:
        """Wait for all work on the stream, and return a copy of a contiguous GPU array."""
        received = np.empty(array.shape, dtype=array.dtype)
        self.fetch(int(array.data.ptr), received)
        return received

    def fetch(self, address: int, received: npt.NDArray[Any]) -> None:
        """Wait for all work on the stream, and fill a contiguous array with the bytes at a GPU address."""
        last = None
        for piece in _pieces(received):
            self._incoming.reverse()
            self._incoming[0].fetch(address, len(piece), self.stream)
            if last is not None:
                last[:] = self._incoming[1].fetched(len(last))
            address, last = address + len(piece), piece
        if last is not None:
            last[:] = self._incoming[0].fetched(len(last))
        else:
            self.stream.synchronize()


def _pieces(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[np.uint8]]:
    """The bytes of a contiguous array, as views of at most ``_PIECE`` bytes."""
    as_bytes = array.reshape(-1).view(np.uint8)
    for start in range(0, len(as_bytes), _PIECE):
        yield as_bytes[start : start + _PIECE]


class _Buffer:
    """Pinned host memory to copy from and to, and GPU memory for what is sent."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._copied = device.cupy.cuda.Event(disable_timing=True)
        self._host = device.pinned(_ALIGNMENT)
        self._gpu = device.cupy.empty(0, dtype=np.uint8)

    def send(self, arrays: Sequence[Sent], stream: Any) -> list[int]:
        parts = [[array] if isinstance(array, np.ndarray) else array for array in arrays]
        starts, total = [], 0
        for part in parts:
            starts.append(total)
            total += -(-sum(array.nbytes for array in part) // _ALIGNMENT) * _ALIGNMENT
        self._make_room(total, stream)
        if total > len(self._gpu):
            self._gpu = self._device.cupy.empty(len(self._host), dtype=np.uint8)
        for start, part in zip(starts, parts, strict=True):
            n_bytes = sum(array.nbytes for array in part)
            target = self._host[start : start + n_bytes].view(part[0].dtype)
            np.concatenate([array.reshape(-1) for array in part], out=target)
        address = int(self._gpu.data.ptr)
        _copy(self._device.cupy, address, self._host.ctypes.data, total, stream)
        self._copied.record(stream)
        return [address + start for start in starts]

    def fetch(self, address: int, n_bytes: int, stream: Any) -> None:
        """Start copying from the GPU to the host, after the work that is already on the stream."""
        self._make_room(n_bytes, stream)
        _copy(self._device.cupy, self._host.ctypes.data, address, n_bytes, stream)
        self._copied.record(stream)

    def fetched(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        """Wait for the bytes of ``fetch``, and return them. The array is valid until the next call."""
        self._copied.synchronize()
        return self._host[:n_bytes]

    def _make_room(self, n_bytes: int, stream: Any) -> None:
        self._copied.synchronize()
        if n_bytes > len(self._host):
            stream.synchronize()  # the GPU may still be reading the smaller buffer
            self._host = self._device.pinned(n_bytes + n_bytes // 2)


def _copy(cupy: types.ModuleType, target: int, source: int, n_bytes: int, stream: Any) -> None:
    runtime = cupy.cuda.runtime
    if n_bytes:
        runtime.memcpyAsync(target, source, n_bytes, runtime.memcpyDefault, stream.ptr)


def _import_cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise MissingExtraError(
            "searching on a GPU needs CuPy: pip install 'muvera-core[cuda12]', or [cuda13] for CUDA 13"
        ) from error
    return cupy


@contextmanager
def _device_errors(name: str) -> Iterator[None]:
    """Turn the errors of CUDA and CuPy into a DeviceError."""
    try:
        yield
    except MuveraError:
        raise
    except MemoryError as error:
        raise DeviceError(
            f"{name} has too little free memory ({error}): lower device_memory, or end other programs that use the GPU"
        ) from error
    except (RuntimeError, ImportError) as error:  # of the runtime, driver, compiler and libraries, or one is missing
        raise DeviceError(f"{name} cannot be used: {error}") from error
    except Exception as error:
        if type(error).__module__.startswith("cupy"):
            raise DeviceError(f"{name} cannot be used: {error}") from error
        raise

"""A CUDA card as an index uses it: which one, its memory, and streams for the threads that search."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from muvera_core.errors import DeviceError, DeviceFallbackWarning, InvalidInputError, MissingExtraError
from muvera_core.validation import shown

if TYPE_CHECKING:
    import types

# The matrix instructions of the kernels are those of the generation that came with 8.0.
MIN_COMPUTE_CAPABILITY = 80
# An array, or several, laid end to end.
Sent = npt.NDArray[Any] | Sequence[npt.NDArray[Any]]
_NAME = re.compile(r"cuda(?::(\d{1,4}))?")
_ALIGNMENT = 256
# Larger arrays are copied in pieces, each while the processor deals with the one before.
_PIECE = 8 << 20
# Memory of a lane for what is small and needed for moments.
_SCRATCH = 8 << 20


def open_device(name: str) -> CudaDevice | None:
    """The device that a user asked for.

    Args:
        name: "cpu"; "cuda" or "cuda:N", which must work; "auto", which takes the first card and, where there is none
            that can be used, says so in a ``DeviceFallbackWarning``.

    Returns:
        The card; None for the CPU.

    Raises:
        InvalidInputError: another name.
        MissingExtraError: CuPy isn't installed.
        DeviceError: there is no such card, its driver doesn't work, or it is too old.
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
    """One card, with a pool of memory of its own.

    Work is done within ``lane()``: a stream that no other thread uses meanwhile.
    """

    def __init__(self, number: int) -> None:
        """Take the card with this number. Raises as ``open_device``."""
        self.number = number
        self.cupy = _import_cupy()
        with _device_errors(f"cuda:{number}"):
            n_cards = self.cupy.cuda.runtime.getDeviceCount()
            if number >= n_cards:
                raise DeviceError(f"there is no cuda:{number}: CUDA sees {n_cards} card(s), numbered from 0")
            card = self.cupy.cuda.Device(number)
            if int(card.compute_capability) < MIN_COMPUTE_CAPABILITY:
                raise DeviceError(
                    f"cuda:{number} has compute capability {card.compute_capability}, the kernels need "
                    f"{MIN_COMPUTE_CAPABILITY} (Ampere) or more: use device='cpu'"
                )
            self.n_multiprocessors = int(card.attributes["MultiProcessorCount"])
        self._pool = self.cupy.cuda.MemoryPool()
        self._pinned = self.cupy.cuda.PinnedMemoryPool()
        self._idle: list[Lane] = []
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """As it is asked for."""
        return f"cuda:{self.number}"

    def free_bytes(self) -> int:
        """Memory of the card that nobody has."""
        with _device_errors(self.name), self.cupy.cuda.Device(self.number):
            return int(self.cupy.cuda.runtime.memGetInfo()[0])

    @property
    def n_bytes(self) -> int:
        """Memory of the card that is held, in use or ready to be."""
        return int(self._pool.total_bytes())

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """A stream, and CuPy set to the card, its pool and that stream. What CuPy raises becomes a DeviceError."""
        with (
            _device_errors(self.name),
            self.cupy.cuda.Device(self.number),
            self.cupy.cuda.using_allocator(self._pool.malloc),
        ):
            with self._lock:
                lane = self._idle.pop() if self._idle else None
            lane = lane or Lane(self)
            try:
                with lane.stream:
                    yield lane
                    lane.tidy()
            except BaseException:
                with suppress(Exception):  # its buffers are free for others once it is done with them
                    lane.stream.synchronize()
                raise
            with self._lock:
                self._idle.append(lane)

    def pinned(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        """Host memory that the card can read and write while the processor does something else."""
        memory = self._pinned.malloc(n_bytes)
        return np.frombuffer(memory, dtype=np.uint8, count=n_bytes)

    def release(self) -> None:
        """Give back what isn't in use, to other indexes and processes."""
        with _device_errors(self.name), self.cupy.cuda.Device(self.number):
            with self._lock:
                self._idle.clear()
            self._pool.free_all_blocks()
            self._pinned.free_all_blocks()


class Lane:
    """A stream, and buffers through which arrays go to the card and come back.

    Attributes:
        n_sent: how often something was sent.
    """

    def __init__(self, device: CudaDevice) -> None:
        self.device = device
        self.n_sent = 0
        # Two, so that one can be filled while the other is copied.
        self._outgoing = [_Buffer(device), _Buffer(device)]
        self._incoming = [_Buffer(device), _Buffer(device)]
        self._scratch, self._used = device.cupy.empty(_SCRATCH, dtype=np.uint8), 0
        self._scratch_at = int(self._scratch.data.ptr)
        self._besides: list[Any] = []
        self.stream = device.cupy.cuda.Stream(non_blocking=True)

    def room(self, n_bytes: int) -> int:
        """Address of so much memory of the card, a multiple of 256, until the lane is given back."""
        used = self._used + -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
        if used > _SCRATCH:
            self._besides.append(self.device.cupy.empty(n_bytes, dtype=np.uint8))
            return int(self._besides[-1].data.ptr)
        address, self._used = self._scratch_at + self._used, used
        return address

    def tidy(self) -> None:
        """Let ``room`` give the same memory again. What still works on it is ahead of what will."""
        self._used = 0
        self._besides.clear()

    def send(self, *arrays: Sent) -> list[int]:
        """Copy arrays to the card in one piece; several that are given as one are laid end to end.

        Returns:
            Their addresses there, multiples of 256. They hold until the call after the next.
        """
        self.n_sent += 1
        self._outgoing.reverse()
        return self._outgoing[0].send(arrays, self.stream)

    def send_to(self, target: Any, array: npt.NDArray[Any]) -> None:
        """Copy an array to a card's contiguous array of the same size and type."""
        place = int(target.data.ptr)
        for piece in _pieces(np.ascontiguousarray(array)):
            (source,) = self.send(piece)
            _copy(self.device.cupy, place, source, len(piece), self.stream)
            place += len(piece)

    def receive(self, array: Any) -> npt.NDArray[Any]:
        """Wait for all work of the lane, and return a copy of a card's contiguous array."""
        received = np.empty(array.shape, dtype=array.dtype)
        self.fetch(int(array.data.ptr), received)
        return received

    def fetch(self, address: int, received: npt.NDArray[Any]) -> None:
        """Wait for all work of the lane, and fill a contiguous array with what is at an address of the card."""
        place, last = address, None
        for piece in _pieces(received):
            self._incoming.reverse()
            self._incoming[0].fetch(place, len(piece), self.stream)
            if last is not None:
                last[:] = self._incoming[1].fetched(len(last))
            place, last = place + len(piece), piece
        if last is not None:
            last[:] = self._incoming[0].fetched(len(last))
        else:
            self.stream.synchronize()


def _pieces(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[np.uint8]]:
    """The bytes of a contiguous array, some at a time, as views."""
    as_bytes = array.reshape(-1).view(np.uint8)
    for start in range(0, len(as_bytes), _PIECE):
        yield as_bytes[start : start + _PIECE]


class _Buffer:
    """Memory of the host that the card copies from and to by itself, and memory of the card for what is sent."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._copied = device.cupy.cuda.Event(disable_timing=True)
        self._host = device.pinned(_ALIGNMENT)
        self._card = device.cupy.empty(0, dtype=np.uint8)

    def send(self, arrays: Sequence[Sent], stream: Any) -> list[int]:
        parts = [[array] if isinstance(array, np.ndarray) else array for array in arrays]
        places, total = [], 0
        for some in parts:
            places.append(total)
            total += -(-sum(array.nbytes for array in some) // _ALIGNMENT) * _ALIGNMENT
        self._make_room(total, stream)
        if total > len(self._card):
            self._card = self._device.cupy.empty(len(self._host), dtype=np.uint8)
        for place, some in zip(places, parts, strict=True):
            n_bytes = sum(array.nbytes for array in some)
            target = self._host[place : place + n_bytes].view(some[0].dtype)
            np.concatenate([array.reshape(-1) for array in some], out=target)
        address = int(self._card.data.ptr)
        _copy(self._device.cupy, address, self._host.ctypes.data, total, stream)
        self._copied.record(stream)
        return [address + place for place in places]

    def fetch(self, address: int, n_bytes: int, stream: Any) -> None:
        """Have the card copy to here, after what it is doing."""
        self._make_room(n_bytes, stream)
        _copy(self._device.cupy, self._host.ctypes.data, address, n_bytes, stream)
        self._copied.record(stream)

    def fetched(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        """Wait for what was fetched, and return it; it holds until the next call."""
        self._copied.synchronize()
        return self._host[:n_bytes]

    def _make_room(self, n_bytes: int, stream: Any) -> None:
        self._copied.synchronize()
        if n_bytes > len(self._host):
            stream.synchronize()  # something may still be reading the smaller one
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
    """Whatever CUDA and CuPy raise, as a DeviceError."""
    try:
        yield
    except MemoryError as error:
        raise DeviceError(
            f"{name} has too little free memory ({error}): lower device_memory, or end what else uses the card"
        ) from error
    except RuntimeError as error:  # of the runtime, the driver, the compiler and the libraries
        raise DeviceError(f"{name} can't be used: {error}") from error
    except Exception as error:
        if type(error).__module__.startswith("cupy"):
            raise DeviceError(f"{name} can't be used: {error}") from error
        raise

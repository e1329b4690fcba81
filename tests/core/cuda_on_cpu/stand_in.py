"""Takes the place of CuPy, on the simulated driver. It has what ``muvera_core.cuda`` uses of CuPy, and no more."""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from cuda_on_cpu.building import driver, kernels


class CUDARuntimeError(RuntimeError):
    """An error of the driver."""


class OutOfMemoryError(MemoryError):
    """Too little memory on the GPU."""


_CODE_OF_OUT_OF_MEMORY = 2


def _call(name: str, *arguments: Any) -> None:
    error = getattr(driver(), name)(*arguments)
    if error == _CODE_OF_OUT_OF_MEMORY:
        raise OutOfMemoryError("Out of memory")
    if error:
        text = ctypes.c_char_p()
        driver().cuGetErrorString(error, ctypes.byref(text))
        raise CUDARuntimeError((text.value or b"").decode())


# Streams, events and memory


class Stream:
    """A stream. Within ``with``, it is the current one of the thread."""

    def __init__(self, non_blocking: bool = False) -> None:
        made = ctypes.c_void_p()
        _call("cuStreamCreate", ctypes.byref(made), 1)
        self.ptr = made.value or 0
        weakref.finalize(self, driver().cuStreamDestroy_v2, made)

    def synchronize(self) -> None:
        _call("cuStreamSynchronize", ctypes.c_void_p(self.ptr))

    def wait_event(self, event: Event) -> None:
        _call("cuStreamWaitEvent", ctypes.c_void_p(self.ptr), ctypes.c_void_p(event.ptr), 0)

    def __enter__(self) -> Stream:
        _state.streams.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _state.streams.pop()


class _DefaultStream(Stream):
    def __init__(self) -> None:
        self.ptr = 0


class _State(threading.local):
    def __init__(self) -> None:
        self.streams: list[Stream] = [_DefaultStream()]
        self.allocators: list[Callable[[int], _Memory]] = [_default_pool.malloc]


def get_current_stream() -> Stream:
    return _state.streams[-1]


class Event:
    def __init__(self, disable_timing: bool = False) -> None:
        made = ctypes.c_void_p()
        _call("cuEventCreate", ctypes.byref(made), 0)
        self.ptr = made.value or 0
        weakref.finalize(self, driver().cuEventDestroy_v2, made)

    def record(self, stream: Stream | None = None) -> None:
        _call("cuEventRecord", ctypes.c_void_p(self.ptr), ctypes.c_void_p((stream or get_current_stream()).ptr))

    def synchronize(self) -> None:
        _call("cuEventSynchronize", ctypes.c_void_p(self.ptr))


def get_elapsed_time(start: Event, end: Event) -> float:
    milliseconds = ctypes.c_float()
    _call("cuEventElapsedTime", ctypes.byref(milliseconds), ctypes.c_void_p(start.ptr), ctypes.c_void_p(end.ptr))
    return milliseconds.value


class MemoryPool:
    """Memory on the GPU. It is freed in the order of the stream's work, as CuPy's pools do."""

    def __init__(self) -> None:
        self.n_bytes = 0

    def malloc(self, n_bytes: int) -> _Memory:
        return _Memory(self, n_bytes)

    def total_bytes(self) -> int:
        return self.n_bytes

    def free_all_blocks(self) -> None:
        _call("cuCtxSynchronize")


class _Memory:
    def __init__(self, pool: MemoryPool, n_bytes: int) -> None:
        made = ctypes.c_uint64()
        _call("cuMemAlloc_v2", ctypes.byref(made), ctypes.c_size_t(max(n_bytes, 1)))
        self.ptr = made.value
        pool.n_bytes += n_bytes
        weakref.finalize(self, _free, pool, made, n_bytes, get_current_stream())


def _free(pool: MemoryPool, address: ctypes.c_uint64, n_bytes: int, stream: Stream) -> None:
    pool.n_bytes -= n_bytes
    driver().cuMemFreeAsync(address, ctypes.c_void_p(stream.ptr))


class PinnedMemoryPool:
    def malloc(self, n_bytes: int) -> Any:
        made = ctypes.c_void_p()
        _call("cuMemHostAlloc", ctypes.byref(made), ctypes.c_size_t(max(n_bytes, 1)), 0)
        memory = (ctypes.c_uint8 * n_bytes).from_address(made.value or 0)
        weakref.finalize(memory, driver().cuMemFreeHost, made)
        return memory

    def free_all_blocks(self) -> None:
        pass


_default_pool = MemoryPool()


def get_default_memory_pool() -> MemoryPool:
    return _default_pool


_state = _State()


@contextmanager
def using_allocator(allocator: Callable[[int], _Memory]) -> Iterator[None]:
    _state.allocators.append(allocator)
    try:
        yield
    finally:
        _state.allocators.pop()


# Kernels


class Function:
    """A kernel. Called with a grid, a block and arguments, it is put on the current stream."""

    def __init__(self, handle: int) -> None:
        self.ptr = handle

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any], shared_mem: int = 0) -> None:
        values = [_as_argument(value) for value in args]
        addresses = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        sizes = [*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3]]
        _call(
            "cuLaunchKernel",
            ctypes.c_void_p(self.ptr),
            *map(ctypes.c_uint, sizes),
            ctypes.c_uint(shared_mem),
            ctypes.c_void_p(get_current_stream().ptr),
            addresses,
            None,
        )


def _as_argument(value: Any) -> npt.NDArray[Any]:
    if isinstance(value, Array):
        return np.array(value.data.ptr, dtype=np.uint64)
    return np.ascontiguousarray(value)


class RawModule:
    def __init__(self, *, code: str, options: Sequence[str] = (), name_expressions: Sequence[str] = ()) -> None:
        self._library = kernels(code, tuple(sorted(name_expressions)))

    def get_function(self, name: str) -> Any:
        handle = self._library.kernel(name.encode())
        assert handle, f"there is no kernel {name}"
        function = Function(handle)
        raw = functools.partial(Function.__call__, function)
        raw.kernel = function  # type: ignore[attr-defined]
        return raw


# Arrays


class Array:
    """An array in the GPU's memory. Its operations wait for the stream and use NumPy."""

    __array_ufunc__ = None  # NumPy leaves operators to this class

    def __init__(self, values: npt.NDArray[Any], memory: object) -> None:
        self._values, self._memory = values, memory

    @classmethod
    def new(cls, shape: Any, dtype: Any) -> Array:
        dtype = np.dtype(dtype)
        n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = _state.allocators[-1](n_bytes)
        raw = (ctypes.c_uint8 * n_bytes).from_address(memory.ptr)
        return cls(np.frombuffer(raw, dtype=dtype).reshape(shape), memory)

    @classmethod
    def of(cls, values: Any) -> Array:
        """A copy of host values."""
        values = np.asarray(values)
        array = cls.new(values.shape, values.dtype)
        array._values[...] = values
        return array

    def now(self) -> npt.NDArray[Any]:
        """The values after all work on the current stream."""
        get_current_stream().synchronize()
        return self._values

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self._values.ctypes.data)

    shape = property(lambda self: self._values.shape)
    dtype = property(lambda self: self._values.dtype)
    size = property(lambda self: self._values.size)
    ndim = property(lambda self: self._values.ndim)
    nbytes = property(lambda self: self._values.nbytes)
    T = property(lambda self: Array(self._values.T, self._memory))

    def __len__(self) -> int:
        return len(self._values)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, *, dl_device: tuple[int, int] | None = None, **options: Any) -> Any:
        assert dl_device is not None, "a host cannot read the GPU's memory"
        assert dl_device[0] == 1, "a host cannot read the GPU's memory"
        return self.get().__dlpack__()

    def get(self) -> npt.NDArray[Any]:
        return self.now().copy()

    def reshape(self, *shape: Any) -> Array:
        return Array(self._values.reshape(*shape), self._memory)

    def view(self, dtype: Any) -> Array:
        return Array(self._values.view(dtype), self._memory)

    def astype(self, dtype: Any, copy: bool = True) -> Array:
        return self if not copy and self.dtype == dtype else Array.of(self.now().astype(dtype))

    def fill(self, value: Any) -> None:
        self.now()[...] = value

    def __getitem__(self, key: Any) -> Array:
        if isinstance(key, Array):
            return Array.of(self.now()[key.now()])
        view = self._values[key]
        is_view = isinstance(view, np.ndarray) and view.base is not None
        return Array(view, self._memory) if is_view else Array.of(view)

    def __setitem__(self, key: Any, value: Any) -> None:
        key = key.now() if isinstance(key, Array) else key
        self.now()[key] = value.now() if isinstance(value, Array) else value

    def _with(self, operation: Callable[..., Any], other: Any = None) -> Array:
        if other is None:
            return Array.of(operation(self.now()))
        return Array.of(operation(self.now(), other.now() if isinstance(other, Array) else other))

    def __matmul__(self, other: Any) -> Array:
        return self._with(np.matmul, other)

    def __add__(self, other: Any) -> Array:
        return self._with(np.add, other)

    def __sub__(self, other: Any) -> Array:
        return self._with(np.subtract, other)

    def __rsub__(self, other: Any) -> Array:
        return self._with(lambda mine, others: others - mine, other)

    def __mul__(self, other: Any) -> Array:
        return self._with(np.multiply, other)

    def __truediv__(self, other: Any) -> Array:
        return self._with(np.divide, other)

    def __ge__(self, other: Any) -> Array:
        return self._with(np.greater_equal, other)

    def __isub__(self, other: Any) -> Array:
        self[...] = self - other
        return self

    def __neg__(self) -> Array:
        return self._with(np.negative)

    def sum(self, axis: int | None = None) -> Array:
        return self._with(lambda values: values.sum(axis=axis))

    def max(self, axis: int | None = None) -> Array:
        return self._with(lambda values: values.max(axis=axis))


def empty(shape: Any, dtype: Any = np.float64) -> Array:
    return Array.new(shape, dtype)


def zeros(shape: Any, dtype: Any = np.float64) -> Array:
    return full(shape, 0, dtype)


def full(shape: Any, value: Any, dtype: Any = None) -> Array:
    return Array.of(np.full(shape, value, dtype=dtype))


def arange(*arguments: Any, dtype: Any = None) -> Array:
    return Array.of(np.arange(*arguments, dtype=dtype))


def asarray(values: Any, dtype: Any = None) -> Array:
    if isinstance(values, Array):
        return values if dtype is None else values.astype(dtype, copy=False)
    return Array.of(np.asarray(values, dtype=dtype))


def ascontiguousarray(values: Array, dtype: Any = None) -> Array:
    values = asarray(values, dtype)
    return values if values._values.flags.c_contiguous else Array.of(values.now())


def concatenate(arrays: Sequence[Array], axis: int = 0) -> Array:
    return Array.of(np.concatenate([array.now() for array in arrays], axis=axis))


def argsort(values: Array, axis: int = -1) -> Array:
    return Array.of(np.argsort(values.now(), axis=axis, kind="stable"))


def take(values: Array, places: Array, axis: int | None = None) -> Array:
    return Array.of(np.take(values.now(), places.now(), axis=axis))


def matmul(left: Array, right: Array) -> Array:
    return left @ right


def square(values: Array) -> Array:
    return values._with(np.square)


def sqrt(values: Array) -> Array:
    return values._with(np.sqrt)


def maximum(left: Any, right: Array) -> Array:
    return Array.of(np.maximum(left.now() if isinstance(left, Array) else left, right.now()))


def from_dlpack(values: Any) -> Array:
    """An array of another library that says it is on the GPU. Its values are copied by way of the host."""
    assert values.__dlpack_device__() == (2, 0), "not on this GPU"
    return values if isinstance(values, Array) else Array.of(np.from_dlpack(values, device="cpu"))


# Modules


def _mem_get_info() -> tuple[int, int]:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value


def _memcpy(target: int, source: int, n_bytes: int, kind: int, stream: int) -> None:
    addresses = ctypes.c_uint64(target), ctypes.c_uint64(source)
    _call("cuMemcpyAsync", *addresses, ctypes.c_size_t(n_bytes), ctypes.c_void_p(stream))


def _memset(target: int, value: int, n_bytes: int, stream: int) -> None:
    _call(
        "cuMemsetD8Async",
        ctypes.c_uint64(target),
        ctypes.c_ubyte(value),
        ctypes.c_size_t(n_bytes),
        ctypes.c_void_p(stream),
    )


class Device:
    compute_capability = "90"

    def __init__(self, number: int) -> None:
        self.id, self.attributes = number, {"MultiProcessorCount": 2}

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass


runtime = SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    getDeviceCount=lambda: 1,
    memGetInfo=_mem_get_info,
    memcpyAsync=_memcpy,
    memsetAsync=_memset,
    memcpyDefault=4,
    memcpyHostToDevice=1,
    memcpyDeviceToHost=2,
    memcpyDeviceToDevice=3,
    deviceSynchronize=lambda: _call("cuCtxSynchronize"),
)
cuda = SimpleNamespace(
    Device=Device,
    Event=Event,
    Function=Function,
    MemoryPool=MemoryPool,
    PinnedMemoryPool=PinnedMemoryPool,
    Stream=Stream,
    get_current_stream=get_current_stream,
    get_elapsed_time=get_elapsed_time,
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    runtime=runtime,
    using_allocator=using_allocator,
)
ndarray = Array
__version__ = "a stand-in"

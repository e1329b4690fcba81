"""Compiles the simulated driver and the CUDA kernels with the system's C++ compiler."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parent
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-ffp-contract=off",
    "-g0",
    "-w",
    "-shared",
    "-fPIC",
    "-fno-strict-aliasing",
)
_EXPORTED = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(')
_DYNAMIC = re.compile(r"extern __shared__ (\w+) (\w+)\[\];")
_INSTRUCTIONS = "// The processor's instructions"


def compiler() -> str:
    """The C++ compiler. Skips the test if there is none."""
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if found is None:
        pytest.skip("needs a C++ compiler, to run the CUDA kernels on the CPU")
    return found


@cache
def driver() -> ctypes.CDLL:
    """The simulated driver's library, loaded."""
    library = ctypes.CDLL(str(driver_path()))
    for name in ("bytes", "sent", "received", "launches", "pinned"):
        getattr(library, f"simulated_{name}").restype = ctypes.c_uint64
    library.simulated_memory.argtypes = [ctypes.c_size_t]
    library.simulated_failure.argtypes = [ctypes.c_int64, ctypes.c_int]
    return library


def driver_path() -> Path:
    """The file of the simulated driver's library. It takes the place of libcuda."""
    return _compiled((_FOLDER / "driver.cpp").read_text(encoding="utf-8"))


@cache
def kernels(source: str, names: tuple[str, ...]) -> ctypes.CDLL:
    """A library with the kernels of a source.

    Args:
        source: the source, as ``muvera_core.cuda`` gives it to CUDA's compiler.
        names: the kernels that are variants of a template, as C++ expressions.

    Returns:
        A library whose function ``kernel`` gives the handle of a name, for the driver's ``cuLaunchKernel``.
    """
    assert source.startswith(_INSTRUCTIONS), "the instructions come first"
    end = source.index("\n}\n", source.rindex("asm(")) + 3
    twin = (_FOLDER / "instructions.cpp").read_text(encoding="utf-8")
    body = source[end:].replace('extern "C" ', "")
    body = _DYNAMIC.sub(r"\1 *\2 = reinterpret_cast<\1 *>(dynamic_shared_memory());", body)
    every = [*names, *_EXPORTED.findall(source)]
    table = "\n".join(f'    if (!strcmp(name, "{name}")) return &fibers::Described<&{name}>::value;' for name in every)
    text = (
        f'#include "threads.h"\nnamespace kernels {{\n{twin}\n{body}\n'
        f"const Kernel *described(const char *name) {{\n{table}\n    return nullptr;\n}}\n}}\n"
        'extern "C" const Kernel *kernel(const char *name) { return kernels::described(name); }\n'
    )
    library = ctypes.CDLL(str(_compiled(text)))
    library.kernel.argtypes, library.kernel.restype = [ctypes.c_char_p], ctypes.c_void_p
    return library


def _compiled(text: str) -> Path:
    """The library that a C++ source becomes. It is kept, so that each source is compiled once on a machine."""
    headers = "".join((_FOLDER / name).read_text(encoding="utf-8") for name in ("threads.h", "kernel.h"))
    digest = hashlib.sha256("\0".join((text, headers, compiler(), *_FLAGS)).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"cuda-on-cpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{digest}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=folder) as made:
        source, result = Path(made) / "source.cpp", Path(made) / "library.so"
        source.write_text(text, encoding="utf-8")
        command = [compiler(), *_FLAGS, f"-I{_FOLDER}", "-o", str(result), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-8000:]
        result.replace(library)
    return library

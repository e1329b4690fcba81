"""Every variant of the kernels compiles. This needs NVIDIA's run-time compiler, but no GPU."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from muvera_core.cuda.device import MIN_COMPUTE_CAPABILITY
from muvera_core.cuda.kernels import MAXSIM_FILES
from muvera_core.cuda.launch import kernel_source
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.storage.token_codec import TokenCodec

pytest.importorskip("cupy", reason="CuPy is not installed")
from cupy.cuda import nvrtc

LAYOUTS = [
    RowLayout.of(TokenCodec(precision, dimension))
    for precision in ("int8", "float16", "4bit", "2bit")
    for dimension in (16, 48, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512, 1024)
]


@pytest.fixture(autouse=True)
def _needs_the_compiler() -> None:
    try:
        nvrtc.getVersion()
    except Exception as error:
        pytest.skip(f"NVIDIA's run-time compiler is not installed: {error}")


def compiled(names: Sequence[str], architecture: int, expressions: list[str]) -> tuple[bytes, str]:
    """The compiled kernels, and what the compiler says of them."""
    program = nvrtc.createProgram(kernel_source(*names), names[0], [], [])
    for expression in expressions:
        nvrtc.addNameExpression(program, expression)
    options = [f"--gpu-architecture=sm_{architecture}", "-std=c++17", "--ptxas-options=-v"]
    try:
        nvrtc.compileProgram(program, options)
    except nvrtc.NVRTCError as error:
        raise AssertionError(nvrtc.getProgramLog(program)) from error
    return nvrtc.getCUBIN(program), nvrtc.getProgramLog(program)


@pytest.mark.parametrize("architecture", [MIN_COMPUTE_CAPABILITY, 90])
def test_maxsim(architecture: int) -> None:
    expressions = {expression for layout in LAYOUTS for expression in layout.kernels}
    assert len(expressions) > 30
    code, log = compiled(MAXSIM_FILES, architecture, sorted(expressions))
    for kernel in (b"unpack_rows", b"pack_rows", b"add_chunks", b"select", b"look_up", b"bury", b"collect"):
        assert kernel in code
    # All numbers that a thread works on are in registers, but for a few numbers of some widths.
    spilled = [int(n_bytes) for n_bytes in re.findall(r"(\d+) bytes spill stores", log)]
    assert max(spilled) <= 32, log
    assert spilled.count(0) >= 0.9 * len(spilled), log


@pytest.mark.parametrize("architecture", [MIN_COMPUTE_CAPABILITY, 90])
def test_encodings(architecture: int) -> None:
    code, _ = compiled(["encodings.cu"], architecture, [])
    for kernel in (b"encode", b"sketch", b"highest"):
        assert kernel in code

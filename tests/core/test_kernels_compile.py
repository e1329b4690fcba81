"""Every variant of the kernels compiles. This needs NVIDIA's run-time compiler, but no GPU."""

from __future__ import annotations

import pytest

from muvera_core.cuda.device import MIN_COMPUTE_CAPABILITY
from muvera_core.cuda.engine import kernel_source
from muvera_core.cuda.row_layout import RowLayout
from muvera_core.storage.token_codec import TokenCodec

pytest.importorskip("cupy", reason="CuPy is not installed")
from cupy.cuda import nvrtc

LAYOUTS = [
    RowLayout.of(TokenCodec(precision, dimension))
    for precision in ("int8", "float16")
    for dimension in (16, 48, 64, 96, 128, 192, 256, 384, 512, 1024)
]


@pytest.fixture(autouse=True)
def _needs_the_compiler() -> None:
    try:
        nvrtc.getVersion()
    except Exception as error:
        pytest.skip(f"NVIDIA's run-time compiler is not installed: {error}")


def compiled(name: str, architecture: int, expressions: list[str]) -> bytes:
    program = nvrtc.createProgram(kernel_source(name), name, [], [])
    for expression in expressions:
        nvrtc.addNameExpression(program, expression)
    try:
        nvrtc.compileProgram(program, [f"--gpu-architecture=sm_{architecture}", "-std=c++17"])
    except nvrtc.NVRTCError as error:
        raise AssertionError(nvrtc.getProgramLog(program)) from error
    code: bytes = nvrtc.getCUBIN(program)
    return code


@pytest.mark.parametrize("architecture", [MIN_COMPUTE_CAPABILITY, 90])
def test_maxsim(architecture: int) -> None:
    expressions = {expression for layout in LAYOUTS for expression in (layout.kernel, layout.split_kernel)}
    assert len(expressions) > 12
    code = compiled("maxsim.cu", architecture, sorted(expressions))
    for kernel in (b"unpack_rows", b"select", b"add_chunks"):
        assert kernel in code


@pytest.mark.parametrize("architecture", [MIN_COMPUTE_CAPABILITY, 90])
def test_encodings(architecture: int) -> None:
    code = compiled("encodings.cu", architecture, [])
    for kernel in (b"encode", b"sketch", b"highest"):
        assert kernel in code

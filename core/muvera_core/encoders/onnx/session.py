"""Runs an ONNX model: token ids in, one vector per token out."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, redirect_stdout
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from muvera_core.encoders.onnx.folder import REMEDY
from muvera_core.encoders.onnx.overflow import products_overflow
from muvera_core.encoders.text.layout import Piece
from muvera_core.errors import DeviceError, EncoderError, InvalidInputError
from muvera_core.token_embeddings import FloatArray
from muvera_core.validation import shown

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Both packages bring the module onnxruntime, so only one may be installed.
_GPU_REMEDY = "run pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'"
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_DEVICE = re.compile(r"cpu|cuda(?::(\d+))?")
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_ERRORS = 3  # onnxruntime's level of messages


class OnnxModel:
    """An ONNX model that turns token ids into token vectors.

    Args:
        file: the model. Its inputs are ``input_ids`` and, if it has them, ``attention_mask`` and ``token_type_ids``,
            each of shape (batch, tokens). Its first output has the shape (batch, tokens, dimension), or (tokens,
            dimension) for a batch of one.
        device: "cpu", "cuda", "cuda:N", or the name of one of onnxruntime's execution providers.
        pad: id that fills up the shorter texts of a batch.
        exact_products: whether 8-bit products of this model cannot overflow, because its weights have 7 bits. For
            other quantized models onnxruntime is told to avoid it on processors where they can, which can take twice
            the time.
        remedy: what to do about a damaged file.

    Raises:
        InvalidInputError: the device has an unknown name.
        DeviceError: this onnxruntime cannot use the device.
        EncoderError: the model cannot be loaded, or has other inputs.
    """

    def __init__(
        self, file: Path, *, device: str = "cpu", pad: int = 0, exact_products: bool = False, remedy: str = REMEDY
    ) -> None:
        providers = _providers(device)
        if _name(providers[0]) == _CUDA:
            _load_cuda_libraries()
        options = _session_options(exact_products)
        if not is_cpu(device):
            options.log_severity_level = _ERRORS  # it warns of the few nodes that it gives to the CPU on purpose
        onnxruntime.disable_telemetry_events()  # what users encode is private
        try:
            with _nothing_on_stdout():
                self._session = onnxruntime.InferenceSession(file, options, providers=providers)
        except Exception as error:  # onnxruntime raises errors of its own types, RuntimeError and others
            raise EncoderError(f"onnxruntime cannot load {file} ({error}): {remedy}") from error
        self._session.disable_fallback()
        wanted = _name(providers[0])
        if wanted not in self._session.get_providers():
            libraries = " (pip install 'onnxruntime-gpu[cuda,cudnn]' brings CUDA's)" if wanted == _CUDA else ""
            raise DeviceError(
                f"onnxruntime has {wanted}, but could not start it for device {device!r}, as its messages on stderr "
                f"say: repair the driver and the libraries that it needs{libraries}, or use device='cpu'"
            )
        self._types: dict[str, Any] = {}
        for tensor in self._session.get_inputs():
            if tensor.name not in _INPUTS or tensor.type not in _INTEGERS:
                raise EncoderError(
                    f"{file} has an input {tensor.name!r} of {tensor.type}, expected only {', '.join(_INPUTS)} of "
                    "whole numbers: export the model for token embeddings"
                )
            self._types[tensor.name] = _INTEGERS[tensor.type]
        if "input_ids" not in self._types:
            raise EncoderError(f"{file} has no input input_ids: export the model for token embeddings")
        self._output = self._session.get_outputs()[0]
        self._pad, self._file = pad, file

    @cached_property
    def width(self) -> int:
        """Width of a token vector. Raises EncoderError if the output is no matrix of token vectors."""
        ids = [self._pad] * 2
        states = self.states([Piece(ids, len(ids), [0, 1], [(0, 0)] * 2, {}, False)])
        if len(states) != 1 or states[0].ndim != 2 or len(states[0]) != len(ids):
            raise EncoderError(
                f"the output {self._output.name!r} of {self._file} has the shape "
                f"{[state.shape for state in states]} for {len(ids)} tokens, expected one vector per token: "
                "export the model for token embeddings"
            )
        return int(states[0].shape[1])

    @property
    def takes_batches(self) -> bool:
        """Whether texts of several lengths can be encoded together: the model then has an attention mask."""
        return "attention_mask" in self._types and len(self._output.shape or (0, 0, 0)) == 3

    def states(self, pieces: Sequence[Piece]) -> list[FloatArray]:
        """The vectors of all tokens of each piece, float32, shape (at least the piece's ids, dimension)."""
        ids = np.full((len(pieces), max(len(piece.ids) for piece in pieces)), self._pad, dtype=np.int64)
        for row, piece in enumerate(pieces):
            ids[row, : len(piece.ids)] = piece.ids
        inputs = {"input_ids": ids}
        if "attention_mask" in self._types:
            inputs["attention_mask"] = np.zeros_like(ids)
            for row, piece in enumerate(pieces):
                inputs["attention_mask"][row, : piece.attended] = 1
        if "token_type_ids" in self._types:
            inputs["token_type_ids"] = np.zeros_like(ids)
        feed = {name: values.astype(self._types[name], copy=False) for name, values in inputs.items()}
        try:
            output = self._session.run([self._output.name], feed)[0].astype(np.float32, copy=False)
        except Exception as error:  # onnxruntime raises errors of its own types, RuntimeError and others
            raise EncoderError(f"{self._file} fails for {ids.shape[1]} tokens: {error}") from error
        return [output] if output.ndim == 2 else list(output)


def require_device(device: object) -> str:
    """The device, if its name is a valid one. Raises InvalidInputError if not."""
    if not isinstance(device, str) or not (_DEVICE.fullmatch(device) or device.endswith("ExecutionProvider")):
        raise InvalidInputError(
            "device must be 'cpu', 'cuda', 'cuda:N', or the name of an execution provider of onnxruntime such as "
            f"'CoreMLExecutionProvider', got {shown(device)}"
        )
    return device


def is_cpu(device: str) -> bool:
    """Whether a device is the CPU."""
    return device in ("cpu", _CPU)


def _providers(device: str) -> list[Any]:
    match = _DEVICE.fullmatch(require_device(device))
    wanted = device if match is None else _CPU if device == "cpu" else _CUDA
    available = onnxruntime.get_available_providers()
    if wanted not in available:
        remedy = _GPU_REMEDY if wanted == _CUDA else "install a build that has it"
        raise DeviceError(
            f"device {device!r} needs onnxruntime's {wanted}, but this build has only {', '.join(available)}: "
            f"{remedy}, or use device='cpu'"
        )
    number = match and match.group(1)
    return [(wanted, {"device_id": int(number)}) if number else wanted]


@cache
def _load_cuda_libraries() -> None:
    """Load CUDA and cuDNN from packages of pip, if they are there. onnxruntime does not look for them by itself."""
    if hasattr(onnxruntime, "preload_dlls"):  # from version 1.21
        with _nothing_on_stdout():
            onnxruntime.preload_dlls()


def _nothing_on_stdout() -> AbstractContextManager[object]:
    """What onnxruntime prints about devices must not be taken for a command's output."""
    return redirect_stdout(sys.stderr)


def _name(provider: Any) -> str:
    name: str = provider[0] if isinstance(provider, tuple) else provider
    return name


def _session_options(exact_products: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    if not exact_products and products_overflow():
        # Without this, 8-bit products overflow on x86 processors without VNNI, and vectors differ between machines.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options

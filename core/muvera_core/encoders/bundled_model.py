"""Loads the files of the bundled encoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from muvera_core.encoders.unknown_words import UNKNOWN_WORDS_VERSION
from muvera_core.errors import EncoderError
from muvera_core.token_embeddings import FloatArray


@dataclass(frozen=True)
class BundledModel:
    """The model, its tokenizer, and the numbers that belong to them.

    Attributes:
        dimension: width of a token vector.
        positions: number of tokens, markers included, that the model can encode at once.
        window_size: tokens of a window of a longer text, markers included.
        window_overlap: tokens that neighbouring windows share.
        fingerprint: identifies the files, the windows and the vectors of unknown words.
        tokenizer: gives wordpieces without markers.
        session: runs the model.
        unknown_id: the id of [UNK].
        markers: the ids of [CLS] and [SEP].
    """

    dimension: int
    positions: int
    window_size: int
    window_overlap: int
    fingerprint: str
    tokenizer: Tokenizer
    session: onnxruntime.InferenceSession
    unknown_id: int
    markers: tuple[int, int]

    def states(self, ids: Sequence[int]) -> FloatArray:
        """The vectors of [CLS], of each id, and of [SEP], shape (ids + 2, dimension)."""
        cls, sep = self.markers
        output: FloatArray = self.session.run(None, {"input_ids": np.array([[cls, *ids, sep]], dtype=np.int64)})[0]
        return output


def load_bundled_model(folder: Path) -> BundledModel:
    """Load the files in ``folder``. Raises EncoderError if one is missing or damaged."""
    try:
        settings = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        for name, file in settings["files"].items():
            # Only the size: hashing 23 MB at every start is slow, and most damage is a file cut short.
            size = (folder / name).stat().st_size
            if size != file["bytes"]:
                raise EncoderError(f"{folder / name} has {size} bytes, expected {file['bytes']}: reinstall muvera-core")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # "[SEP]" written in a text is text, not a marker.
        tokenizer.encode_special_tokens = True
        onnxruntime.disable_telemetry_events()  # what users encode is private
        session = onnxruntime.InferenceSession(
            folder / "model.onnx", _session_options(), providers=["CPUExecutionProvider"]
        )
        return BundledModel(
            dimension=settings["dimension"],
            positions=settings["positions"],
            window_size=settings["window_tokens"],
            window_overlap=settings["window_overlap"],
            fingerprint=_fingerprint(settings),
            tokenizer=tokenizer,
            session=session,
            unknown_id=tokenizer.token_to_id("[UNK]"),
            markers=(tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")),
        )
    except EncoderError:
        raise
    except Exception as error:  # tokenizers and onnxruntime raise bare Exception and RuntimeError
        raise EncoderError(
            f"the bundled encoder in {folder} cannot be loaded ({error}): reinstall muvera-core"
        ) from error


def _fingerprint(settings: dict[str, Any]) -> str:
    files = "-".join(file["sha256"][:12] for file in settings["files"].values())
    windows = f"p{settings['positions']}-w{settings['window_tokens']}-o{settings['window_overlap']}"
    return f"bundled-minilm-{files}-{windows}-{UNKNOWN_WORDS_VERSION}"


def _session_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Without this, 8-bit products overflow on x86 processors without VNNI, and vectors differ between machines.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options

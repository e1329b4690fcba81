"""The encoder for text in other languages: token states of multilingual-e5-small, 4 bits, on the CPU."""

from __future__ import annotations

from pathlib import Path

from muvera_core.encoders.packaged.encoder import PackagedEncoder
from muvera_core.encoders.packaged.fingerprints import MULTILINGUAL, MULTILINGUAL_DIMENSIONS
from muvera_core.encoders.packaged.model import PackagedModel, load_packaged_model
from muvera_core.encoders.text.reports import TextReports
from muvera_core.errors import InvalidInputError, MissingExtraError
from muvera_core.validation import require_count

# The mark of a word's start. As a token of its own it has no characters.
_WORD_START = "▁"


class MultilingualEncoder(PackagedEncoder):
    """Token embeddings of text in about 100 languages, with nothing to download and no PyTorch.

    Questions find passages in other languages, too. The model is multilingual-e5-small. Its token vectors, less the
    mean of many texts, are compared by MaxSim. Its files come with the package muvera-multilingual.

    A text of up to 508 wordpieces is encoded whole, a longer one in overlapping windows of 252. Each window is encoded
    on its own, so a text's vectors never depend on the other texts of the call. The vectors of the markers at the start
    and the end of every window are kept. The model was trained with "query: " and "passage: " in front of texts, so
    texts are encoded with them, but these words have no vectors.

    A word with a character that the vocabulary lacks gets one vector per character, made from the characters alone, so
    that it matches the same characters and nothing else. If a third of a text is unknown, an UnknownTextWarning says
    so, once for documents and once for queries.

    Encoders can be pickled and copied: the copy loads the model's files again, onto the same device.

    A GPU's vectors differ from the CPU's by rounding, so an index can be made on one and searched on the other. On the
    CPU vectors do not depend on the other texts of a call, bit by bit; on a GPU the last bits may.

    Args:
        num_threads: number of windows, or batches of 32 on a GPU, that are encoded at the same time; by default one per
            available core, and one on a GPU.
        max_document_tokens: number of wordpieces, and characters of unknown words, of a document that are encoded.
            The rest is left out with a TruncatedTextWarning.
        max_query_tokens: the same for a query.
        dimension: width of a token vector: 384, or 256 for two thirds of the space.
        device: "cpu", "cuda" or "cuda:N", or the name of another execution provider of onnxruntime. A GPU needs a build
            of onnxruntime for it, such as onnxruntime-gpu. It is not part of the fingerprint.

    Raises:
        MissingExtraError: the package muvera-multilingual is not installed.
        InvalidInputError: an argument is below 1, the dimension is another one, or the device's name is unknown.
        DeviceError: onnxruntime cannot use the device.
        EncoderError: the model files are missing or damaged.
    """

    fingerprints = MULTILINGUAL

    def __init__(
        self,
        num_threads: int | None = None,
        max_document_tokens: int = 16_384,
        max_query_tokens: int = 512,
        dimension: int = MULTILINGUAL_DIMENSIONS[0],
        device: str = "cpu",
    ) -> None:
        if require_count("dimension", dimension) not in MULTILINGUAL_DIMENSIONS:
            known = " or ".join(map(str, MULTILINGUAL_DIMENSIONS))
            raise InvalidInputError(f"dimension must be {known}, got {dimension}")
        super().__init__(num_threads, max_document_tokens, max_query_tokens, dimension, device)

    def load_model(self, device: str) -> PackagedModel:
        """Load the files of muvera-multilingual."""
        return load_packaged_model(find_folder(), "muvera-multilingual", device, _WORD_START)

    def make_reports(self, document_remedy: str, query_remedy: str) -> TextReports:
        """Warnings about text that not even this encoder reads."""
        return TextReports(document_remedy, query_remedy, unread_remedy="use an encoder that was made for it")


def find_folder() -> Path:
    """The folder of the model's files. Raises MissingExtraError if their package is not installed."""
    try:
        from muvera_multilingual import FOLDER
    except ImportError as error:
        raise MissingExtraError(
            "MultilingualEncoder needs the package muvera-multilingual: pip install 'muvera-core[multilingual]'"
        ) from error
    return FOLDER

"""The encoder that ships with muvera: all-MiniLM-L6-v2 trained for MaxSim, up to 128 dimensions, int8, on the CPU."""

from __future__ import annotations

from pathlib import Path

from muvera_core.encoders.packaged.encoder import PackagedEncoder
from muvera_core.encoders.packaged.fingerprints import BUNDLED, BUNDLED_DIMENSION
from muvera_core.encoders.packaged.model import PackagedModel, load_packaged_model
from muvera_core.encoders.text.reports import TextReports
from muvera_core.errors import InvalidInputError
from muvera_core.validation import require_count

ASSETS = Path(__file__).parents[1] / "assets"


class BundledEncoder(PackagedEncoder):
    """Token embeddings of English text, with nothing to download and no PyTorch.

    A text of up to 510 wordpieces is encoded whole, a longer one in overlapping windows of 254. Each window is
    encoded on its own, so a text's vectors never depend on the other texts of the call. The [CLS] vector at the start
    of every window and the [SEP] vector at its end are kept: they stand for the window as a whole.

    The vocabulary lacks most characters of other scripts, and emoji. A word with such a character gets one vector per
    character, made from the characters alone, so that it matches the same characters and nothing else. A longer
    English "word", such as 200 characters of base64, gets one vector. A window in which nothing is known has no [CLS]
    and [SEP], because they would match those of every other such window. If a third of a text is unknown, an
    UnknownTextWarning says so, once for documents and once for queries.

    Encoders can be pickled and copied: the copy loads the model's files again, onto the same device.

    A GPU computes with the same weights, but does not round the inputs of products to 8 bits, as the CPU does. The
    cosine of its vectors with those of the CPU is .999 on average. An index can be made on one and searched on the
    other. On the CPU vectors do not depend on the other texts of a call, bit by bit; on a GPU the last bits may.

    Args:
        num_threads: number of windows, or batches of 32 on a GPU, that are encoded at the same time; by default one per
            available core, and one on a GPU.
        max_document_tokens: number of wordpieces, and characters of unknown words, of a document that are encoded.
            The rest is left out with a TruncatedTextWarning.
        max_query_tokens: the same for a query.
        dimension: width of a token vector, from 1 to 128. The first directions of the model are kept, and the vectors
            are scaled to unit length again. With 64, an index takes half the space and reranks faster, and finds
            slightly less.
        device: "cpu", "cuda" or "cuda:N", or the name of another execution provider of onnxruntime. A GPU needs a build
            of onnxruntime for it, such as onnxruntime-gpu. It is not part of the fingerprint.

    Raises:
        InvalidInputError: an argument is below 1, or the dimension above 128, or the device's name unknown.
        DeviceError: onnxruntime cannot use the device.
        EncoderError: the model files are missing or damaged.

    Example:
        >>> encoder = BundledEncoder()
        >>> encoder.encode_queries(["who wrote Faust?"]).vectors.shape
        (6, 128)
    """

    fingerprints = BUNDLED

    def __init__(
        self,
        num_threads: int | None = None,
        max_document_tokens: int = 16_384,
        max_query_tokens: int = 512,
        dimension: int = BUNDLED_DIMENSION,
        device: str = "cpu",
    ) -> None:
        if require_count("dimension", dimension) > BUNDLED_DIMENSION:
            raise InvalidInputError(f"dimension must be at most {BUNDLED_DIMENSION}, got {dimension}")
        super().__init__(num_threads, max_document_tokens, max_query_tokens, dimension, device)

    def load_model(self, device: str) -> PackagedModel:
        """Load the files that are in this package."""
        return load_packaged_model(ASSETS, "muvera-core", device)

    def make_reports(self, document_remedy: str, query_remedy: str) -> TextReports:
        """Warnings that name the multilingual encoder."""
        return TextReports(document_remedy, query_remedy, reads_latin_only=True)

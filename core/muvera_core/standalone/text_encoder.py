"""Stage-one vectors of texts, for vector databases that hold one vector per text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from muvera_core.batches import batched
from muvera_core.encoders import TokenEncoder, default_encoder, naming, require_encoder
from muvera_core.errors import InvalidInputError
from muvera_core.set_encoders import FDEConfig, FixedDimensionalEncoder, resolve_fde_config
from muvera_core.token_embeddings import FloatArray, unit_length
from muvera_core.validation import require_count, require_encoded, require_strings


class TextEncoder:
    """A token encoder and a Fixed Dimensional Encoding in one: one vector per text.

    By default, all vectors have unit length. Then inner product, cosine and Euclidean distance give the same ranking,
    which is also that of an index's stage one. With ``normalize=False``, the vectors are the plain encodings, which are
    made for inner product only.

    Every text gets a vector, also a blank one, because other databases need one for each text. Halves of surrogate
    pairs become U+FFFD.

    A TextEncoder can be pickled and copied if its token encoder can.

    Attributes:
        encoder: the token encoder.
        fde: the settings of the encoding.
        normalize: whether vectors are scaled to unit length.
        batch_size: texts per call of the encoder.
    """

    def __init__(
        self,
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        *,
        normalize: bool = True,
        batch_size: int = 64,
    ) -> None:
        """Combine a token encoder with an encoding.

        Args:
            encoder: makes the token vectors; None takes the bundled one.
            fde: settings of the encoding; None takes the defaults.
            normalize: scale vectors to unit length.
            batch_size: texts per call of the encoder.

        Raises:
            DimensionMismatchError: ``fde`` is for vectors of another width than the encoder's.
            InvalidInputError: ``fde.center`` is set, which needs the mean token of a corpus, or an argument is
                invalid.
        """
        self.encoder = default_encoder() if encoder is None else require_encoder(encoder)
        self.fde = resolve_fde_config(fde, self.encoder.dimension)
        if self.fde.center:
            raise InvalidInputError(
                "fde.center needs the mean token of a corpus, which is not known here: set it to False"
            )
        self.normalize = normalize
        self.batch_size = require_count("batch_size", batch_size)
        self._set_encoder = FixedDimensionalEncoder(self.fde)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_set_encoder"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._set_encoder = FixedDimensionalEncoder(self.fde)

    @property
    def output_dimension(self) -> int:
        """Width of a vector."""
        return self._set_encoder.output_dimension

    @property
    def fingerprint(self) -> str:
        """Identifies the encoder and all settings that affect the vectors."""
        scale = "unit" if self.normalize else "plain"
        return f"{self.encoder.fingerprint}/{self._set_encoder.fingerprint}/{scale}"

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values; of the token encoder, its own settings."""
        encoder = dict(getattr(self.encoder, "settings", {}))
        return {"encoder": encoder, "fde": asdict(self.fde), "normalize": self.normalize}

    def encode_documents(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of passages, to store: float32, shape (texts, output_dimension)."""
        parts = [np.empty((0, self.output_dimension), dtype=np.float32)]
        for batch in batched(enumerate(require_strings("texts", texts)), self.batch_size):
            with naming([place for place, _ in batch]):
                encoded = self.encoder.encode_documents([text for _, text in batch])
            tokens = require_encoded(encoded, len(batch), self.encoder.dimension)
            parts.append(self._scaled(self._set_encoder.encode_documents(tokens)))
        return np.concatenate(parts)

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of queries, to search with: float32, shape (texts, output_dimension)."""
        texts = require_strings("texts", texts)
        tokens = require_encoded(self.encoder.encode_queries(texts), len(texts), self.encoder.dimension)
        return self._scaled(self._set_encoder.encode_queries(tokens))

    def _scaled(self, vectors: FloatArray) -> FloatArray:
        return unit_length(vectors) if self.normalize else vectors

"""A learned set encoder, after LEMUR (arXiv 2601.21853): see ``encoder.py``."""

from muvera_core.set_encoders.lemur.encoder import LearnedSetEncoder
from muvera_core.set_encoders.lemur.settings import LearnedMatrices, LearnedSetEncoderConfig

__all__ = ["LearnedMatrices", "LearnedSetEncoder", "LearnedSetEncoderConfig"]

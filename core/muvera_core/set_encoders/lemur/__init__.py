"""A learned set encoder, based on LEMUR (arXiv 2601.21853). ``encoder.py`` describes it."""

from muvera_core.set_encoders.lemur.encoder import LearnedSetEncoder
from muvera_core.set_encoders.lemur.settings import LearnedMatrices, LearnedSetEncoderConfig

__all__ = ["LearnedMatrices", "LearnedSetEncoder", "LearnedSetEncoderConfig"]

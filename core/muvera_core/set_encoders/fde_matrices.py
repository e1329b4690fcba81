"""The random matrices of a Fixed Dimensional Encoding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from muvera_core.errors import InvalidInputError
from muvera_core.set_encoders.fde_config import FDEConfig
from muvera_core.token_embeddings import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class FDEMatrices:
    """The random matrices of an encoder: R repetitions, d token width, k hyperplanes, p projected width.

    Attributes:
        simhash: hyperplanes, float32 (R, d, k); the first is the most significant bit.
        projection: projections of token values, float32 (R, d, p); None if values are kept whole.
        sketch_index: output dimension of each dimension in the final projection, int64 (width before it,);
            None if there is no final projection.
        sketch_sign: sign of each dimension in the final projection, ±1, float32 (width before it,); None if there is
            no final projection.
    """

    simhash: FloatArray
    projection: FloatArray | None = None
    sketch_index: IntArray | None = None
    sketch_sign: FloatArray | None = None

    @classmethod
    def draw(cls, config: FDEConfig) -> FDEMatrices:
        """Draw all matrices from ``config.seed``."""
        rng = np.random.default_rng(config.seed)
        shape = (config.num_repetitions, config.dimension)
        simhash = rng.standard_normal((*shape, config.num_simhash_projections), dtype=np.float32)
        projection = sketch_index = sketch_sign = None
        if config.projection_dimension is not None:
            if config.projection == "dense":
                projection = _random_signs(rng, (*shape, config.projection_dimension))
                projection /= np.float32(np.sqrt(config.projection_dimension))
            else:
                projection = np.zeros((*shape, config.projection_dimension), dtype=np.float32)
                column = rng.integers(config.projection_dimension, size=(*shape, 1))
                np.put_along_axis(projection, column, _random_signs(rng, column.shape), axis=2)
        if config.final_projection_dimension is not None:
            sketch_index = rng.integers(config.final_projection_dimension, size=config.sketched_from)
            sketch_sign = _random_signs(rng, sketch_index.shape)
        return cls(simhash, projection, sketch_index, sketch_sign)

    def check(self, config: FDEConfig) -> None:
        """Raise InvalidInputError unless the matrices have the shapes that ``config`` needs and valid indices."""
        shape = (config.num_repetitions, config.dimension)
        projected, sketched = config.projection_dimension, config.final_projection_dimension
        sketch_shape = (config.sketched_from,) if sketched else None
        for name, matrix, expected in (
            ("simhash", self.simhash, (*shape, config.num_simhash_projections)),
            ("projection", self.projection, (*shape, projected) if projected else None),
            ("sketch_index", self.sketch_index, sketch_shape),
            ("sketch_sign", self.sketch_sign, sketch_shape),
        ):
            got = None if matrix is None else getattr(matrix, "shape", type(matrix).__name__)
            if got != expected:
                raise InvalidInputError(f"{name} has shape {got}, but the configuration needs {expected}")
        index = self.sketch_index
        if index is not None and sketched is not None and not ((index >= 0) & (index < sketched)).all():
            raise InvalidInputError(f"sketch_index must lie in [0, {sketched})")


def _random_signs(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    return rng.integers(2, size=shape).astype(np.float32) * 2 - 1

"""Settings that benchmarks compare with."""

from __future__ import annotations

from muvera_core import FDEConfig

# What the MUVERA paper's experiments mostly use: 10,240 dimensions.
PUBLISHED_FDE = FDEConfig(
    num_repetitions=20, num_simhash_projections=5, projection_dimension=16, fill_empty_partitions=True
)

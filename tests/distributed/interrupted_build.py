"""Starts a cluster with one processor and builds an index, until it is killed: the encoder stops half way."""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from noting_encoder import NotingEncoder

from muvera_core.distributed import ShardedMuveraIndex, build

if __name__ == "__main__":
    folder, corpus, notes, stops_at = sys.argv[1:]
    ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=100_000_000)
    index = ShardedMuveraIndex.create(folder, NotingEncoder(Path(notes), stops_at=stops_at), n_shards=2)
    build(index, corpus, batch_size=8)

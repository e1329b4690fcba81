"""Kills nodes of a cluster under load, and checks that no answer is wrong and nothing acknowledged is lost.

A cluster of several nodes runs on this machine. Threads search and add documents while every few seconds a node is
killed, with all its processes, and another one takes its place. It prints how many searches got errors or partial
results, and ends with status 1 if an answer was wrong, or a document is missing that was acknowledged.

    python tests/benchmarks/cluster_kills.py
    python tests/benchmarks/cluster_kills.py --seconds 60 --every 10 --on-missing-shard partial --replicas 0
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine

from muvera_core.distributed import ClusterOptions, ShardedMuveraIndex, shard_of
from muvera_core.encoders import CallableEncoder
from muvera_core.errors import MuveraError, PartialResultWarning, PartialWriteError
from muvera_core.hits import Hits
from muvera_core.token_embeddings import FloatArray

# A loopback address. Ray replaces 127.0.0.1 by the address of the network card.
_HOST = "127.0.0.2"
_DIMENSION = 16
_TOKENS = 8
_BATCH = 8


@dataclass
class Log:
    """What happened.

    Attributes:
        acknowledged: texts by id that must be found from now on.
        unknown: ids whose change may have been made or not.
        counts: numbers of searches and writes, by what became of them.
        wrong: descriptions of wrong answers.
        milliseconds: times of searches that had a full answer.
    """

    acknowledged: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)


def vectors(text: str) -> FloatArray:
    """Token vectors that depend on the text, float32, shape (_TOKENS, _DIMENSION)."""
    drawn = np.random.default_rng(zlib.crc32(text.encode())).normal(size=(_TOKENS, _DIMENSION)).astype(np.float32)
    scaled: FloatArray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return scaled


def encoder() -> CallableEncoder:
    """An encoder that costs nothing, so that the cluster is what is measured."""

    def encode(texts: list[str]) -> list[FloatArray]:
        return [vectors(text) for text in texts]

    return CallableEncoder(encode, encode, _DIMENSION, "drawn")


def search(index: ShardedMuveraIndex, log: Log, done: threading.Event, seed: int) -> None:
    """Ask for documents by their own text. The document itself has to be the best hit, with its text."""
    draw = random.Random(seed)
    while not done.is_set():
        known = list(log.acknowledged.items())
        id, text = draw.choice(known)
        start = time.perf_counter()
        try:
            hits = index.search(text, k=3, exact=True)
        except MuveraError as error:
            log.counts[f"searches that raised {type(error).__name__}"] += 1
            continue
        missing = hits.missing_shards if isinstance(hits, Hits) else ()
        if missing:
            log.counts["searches with a partial result"] += 1
        else:
            log.counts["searches with a full result"] += 1
            log.milliseconds.append(1000 * (time.perf_counter() - start))
        if shard_of(id, index.n_shards) in missing:
            continue
        if not hits or (hits[0].id, hits[0].text) != (id, text):
            log.wrong.append(f"{id} was not found by its own text: {[hit.id for hit in hits]}")
        for hit in hits:
            if hit.text != f"text of {hit.id}":
                log.wrong.append(f"{hit.id} has another document's text")


def write(index: ShardedMuveraIndex, log: Log, done: threading.Event) -> None:
    """Add documents, and note which of them were acknowledged."""
    for number in range(10**9):
        if done.is_set():
            return
        texts = {f"doc-{number}-{i}": f"text of doc-{number}-{i}" for i in range(_BATCH)}
        try:
            index.add(list(texts.values()), list(texts))
            acknowledged = set(texts)
            log.counts["writes that were acknowledged"] += 1
        except PartialWriteError as error:
            acknowledged = set(error.acknowledged)
            log.unknown |= set(texts) - acknowledged
            log.counts["writes that were acknowledged in part"] += 1
        except MuveraError as error:
            acknowledged = set()
            log.unknown |= set(texts)
            log.counts[f"writes that raised {type(error).__name__}"] += 1
        log.acknowledged.update({id: text for id, text in texts.items() if id in acknowledged})


def kill_nodes(cluster: Any, nodes: list[Any], add_node: Any, log: Log, seconds: float, every: float) -> None:
    """Kill a node every few seconds, and replace it."""
    draw, end = random.Random(0), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(every, left))
        killed = nodes.pop(draw.randrange(len(nodes)))
        cluster.remove_node(killed, allow_graceful=False)
        log.counts["nodes that were killed"] += 1
        nodes.append(add_node())


def check(index: ShardedMuveraIndex, log: Log) -> None:
    """Compare all documents with what was acknowledged."""
    found = {document.id: document.text for document in index.find()}
    missing = [id for id, text in log.acknowledged.items() if found.get(id) != text]
    strange = [id for id in found if id not in log.acknowledged and id not in log.unknown]
    log.wrong += [f"{id} was acknowledged and is missing" for id in missing]
    log.wrong += [f"{id} was never added" for id in strange]
    if index.count() != len(found):
        log.wrong.append(f"count() says {index.count()}, but there are {len(found)} documents")


def run(arguments: argparse.Namespace) -> Log:
    """Run the load and the kills."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    folder = str(Path(__file__).parent)  # Ray's processes import this module
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    health = {"health_check_period_ms": 500, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}
    head = {"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False, "_system_config": health}
    cluster: Any = Cluster(initialize_head=True, head_node_args={**head, "node_ip_address": _HOST})
    ray.init(address=cluster.address, log_to_driver=False, _node_ip_address=_HOST)

    def add_node() -> Any:
        return cluster.add_node(num_cpus=4, object_store_memory=80_000_000, node_ip_address=_HOST)

    nodes = [add_node() for _ in range(arguments.nodes)]
    warnings.simplefilter("ignore", PartialResultWarning)  # they are counted
    log, done = Log(), threading.Event()
    options = ClusterOptions(
        n_replicas=arguments.replicas,
        on_missing_shard=arguments.on_missing_shard,
        timeout=arguments.timeout,
        actor_options={"num_cpus": 1},  # none on the head, which is not killed
    )
    try:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "index"
            with ShardedMuveraIndex.create(path, encoder, n_shards=arguments.shards, options=options) as index:
                first = {f"first-{i}": f"text of first-{i}" for i in range(200)}
                index.add(list(first.values()), list(first))
                log.acknowledged.update(first)
                threads = [
                    threading.Thread(target=write, args=(index, log, done)),
                    *(threading.Thread(target=search, args=(index, log, done, seed)) for seed in range(2)),
                ]
                for thread in threads:
                    thread.start()
                try:
                    kill_nodes(cluster, nodes, add_node, log, arguments.seconds, arguments.every)
                finally:
                    done.set()
                    for thread in threads:
                        thread.join()
            options = ClusterOptions(actor_options={"num_cpus": 1})
            with ShardedMuveraIndex.open(path, encoder, options=options) as index:
                check(index, log)
    finally:
        ray.shutdown()
        cluster.shutdown()
    return log


def main() -> None:
    """Print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--every", type=float, default=5, help="seconds between two kills")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=30)
    parser.add_argument("--on-missing-shard", choices=["error", "partial"], default="error")
    arguments = parser.parse_args()
    log = run(arguments)
    print(describe_machine())
    print(f"{arguments.nodes} nodes, {arguments.shards} shards, {arguments.replicas} replicas of each")
    for what, n in sorted(log.counts.items()):
        print(f"{n:8,} {what}")
    if log.milliseconds:
        p50, p99, most = np.percentile(log.milliseconds, [50, 99, 100])
        print(f"full results took {p50:.1f} ms (p50), {p99:.1f} ms (p99), {most:.0f} ms (longest)")
    print(f"{len(log.acknowledged):8,} documents were acknowledged, {len(log.unknown):,} may have been written or not")
    print(f"{len(log.wrong):8,} wrong answers or lost documents")
    for problem in log.wrong[:20]:
        print(f"         {problem}")
    raise SystemExit(1 if log.wrong else 0)


if __name__ == "__main__":
    main()

"""What a growing index costs with the default settings: time of a query, memory, opening, disk, and what it finds.

    python tests/benchmarks/growth.py FOLDER [--sizes 5000 20000 100000] [--before CHECKOUT] [--plot FILE]

For each size an index is made by one process and opened and searched by another, so that its memory is its own. With
``--before``, another checkout of the code (its ``core`` folder) does the same in turn. Times are of the processor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from embedded import collection_parser, embed, exact_top
from machine import describe_machine

from muvera_core import MuveraIndex, TokenEmbeddings
from muvera_core.encoders import PrecomputedEmbeddings

K = 10
ADDED_TOGETHER = 4096
EXACT_QUESTIONS = 3
COLUMNS = (
    "code",
    "documents",
    "CPU ms a query",
    "exact",
    "fidelity@10",
    "resident MB",
    "open s",
    "open CPU s",
    "bytes a token",
    "bytes a document",
    "add CPU s",
)


def main() -> None:
    """Measure each size and print a table."""
    parser = collection_parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 20_000, 100_000])
    parser.add_argument("--before", type=Path, help="the core folder of another checkout, to compare with")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    collection = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    print(describe_machine())
    codes = {"this": None} | ({"before": arguments.before} if arguments.before else {})
    rows = []
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for size in (min(size, len(collection.documents)) for size in arguments.sizes):
        documents = TokenEmbeddings(
            collection.documents.vectors[: collection.documents.offsets[size]], collection.documents.offsets[: size + 1]
        )
        with tempfile.TemporaryDirectory() as folder:
            write_tokens(Path(folder), documents, collection.queries)
            for name, path in codes.items():
                rows.append({"code": name} | measured(Path(folder), path))
                print("| " + " | ".join(shown(rows[-1][column]) for column in COLUMNS) + " |", flush=True)
    if arguments.plot:
        plot(rows, arguments.plot)


def write_tokens(folder: Path, documents: TokenEmbeddings, queries: TokenEmbeddings) -> None:
    """Files for the processes that measure, which do not have to load the whole collection."""
    np.save(folder / "documents.npy", documents.vectors)
    np.savez(
        folder / "others.npz",
        offsets=documents.offsets,
        queries=queries.vectors,
        query_offsets=queries.offsets,
        exact=np.stack(exact_top(queries, documents, K)),
    )


def measured(folder: Path, core: Path | None) -> dict[str, Any]:
    """What the code in this folder, or this code, needs."""
    environment = dict(os.environ)
    if core is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(core), environment.get("PYTHONPATH", "")])
    results: dict[str, Any] = {}
    index = folder / f"index of {'this' if core is None else 'before'}"
    for step in ("make", "search"):
        command = [sys.executable, __file__, f"--{step}", str(folder), str(index)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        results |= json.loads(done.stdout.splitlines()[-1])
    return results


def make(folder: Path, path: Path) -> dict[str, float]:
    """Add all documents to a new index."""
    vectors, offsets = np.load(folder / "documents.npy", mmap_mode="r"), np.load(folder / "others.npz")["offsets"]
    start = time.process_time()
    with MuveraIndex.create(path, PrecomputedEmbeddings(vectors.shape[1], "growth")) as index:
        for first in range(0, len(offsets) - 1, ADDED_TOGETHER):
            some = range(first, min(first + ADDED_TOGETHER, len(offsets) - 1))
            tokens = [np.asarray(vectors[offsets[i] : offsets[i + 1]]) for i in some]
            index.add_embeddings(tokens, ids=[f"d{i}" for i in some])
    seconds = time.process_time() - start
    n_bytes = sum(file.stat().st_size for file in path.iterdir())
    return {
        "documents": len(offsets) - 1,
        "add CPU s": seconds,
        "bytes a token": n_bytes / offsets[-1],
        "bytes a document": n_bytes / (len(offsets) - 1),
    }


def search(folder: Path, path: Path) -> dict[str, float]:
    """Open an index and search it."""
    with np.load(folder / "others.npz") as content:
        queries = TokenEmbeddings(content["queries"], content["query_offsets"])
        exact = content["exact"]
    resident_before, seconds, cpu = resident(), time.perf_counter(), time.process_time()
    index = MuveraIndex.open(path, PrecomputedEmbeddings(queries.dimension, "growth"))
    seconds, cpu = time.perf_counter() - seconds, time.process_time() - cpu
    found = 0
    for query, wanted in zip(queries, exact, strict=True):  # the first reading of tokens compares checksums
        found += len({f"d{i}" for i in wanted} & {hit.id for hit in index.search_embeddings(query, K)})
    start = time.process_time()
    for query in queries:
        index.search_embeddings(query, K)
    milliseconds = (time.process_time() - start) / len(queries) * 1e3
    peak = resident()
    start = time.process_time()
    for query in list(queries)[:EXACT_QUESTIONS]:
        index.search_embeddings(query, K, exact=True)
    exact_milliseconds = (time.process_time() - start) / EXACT_QUESTIONS * 1e3
    return {
        "CPU ms a query": milliseconds,
        "exact": exact_milliseconds,
        "fidelity@10": found / exact.size,
        "resident MB": peak / 1e6,
        "of it before opening": resident_before / 1e6,
        "open s": seconds,
        "open CPU s": cpu,
    }


def resident() -> int:
    """Resident bytes of this process, mapped files included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def shown(value: Any) -> str:
    """A cell of the table."""
    return value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw how each number grows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    names = ("CPU ms a query", "fidelity@10", "resident MB", "open s", "bytes a token", "add CPU s")
    for axes, name in zip(figure.subplots(2, 3).ravel(), names, strict=True):
        for code in dict.fromkeys(row["code"] for row in rows):
            chosen = [row for row in rows if row["code"] == code]
            axes.plot([row["documents"] for row in chosen], [row[name] for row in chosen], "o-", label=code)
        axes.set_xscale("log")
        axes.set_xlabel("documents")
        axes.set_title(name)
        axes.set_ylim(bottom=None if name == "fidelity@10" else 0)
    axes.legend()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    if sys.argv[1:2] in (["--make"], ["--search"]):
        step = make if sys.argv[1] == "--make" else search
        print(json.dumps(step(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main()

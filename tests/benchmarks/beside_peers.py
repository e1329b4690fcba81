"""Compares muvera with other systems for late interaction, on the same token embeddings, on the CPU.

    pip install -r tests/benchmarks/peers/requirements.txt    # and requirements-torch.txt, requirements-tachiom.txt
    python tests/benchmarks/beside_peers.py FOLDER|FILE.npz [--documents N] [--questions 300] [--plot FILE.png]

Each system is built in a process of its own, and searched in two more: one has one core, the other has all. They open
what the first one has left on disk. A system that is not installed, or fails, has a row that says so. The results of
each system are in a file of their own, in --results. With --reuse, only muvera and systems without results are
measured.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from machine import describe_machine
from peers import inputs
from peers.collecting import collect
from peers.registry import entries
from peers.reporting import draw, settings, table
from peers.running import reusable, run

_K = 10


def main() -> None:
    temporary = Path(tempfile.gettempdir()) / "muvera-benchmarks"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a collection in BEIR's format, or token embeddings in an .npz file")
    parser.add_argument("--documents", type=int, help="number of documents (default: all)")
    parser.add_argument("--questions", type=int, default=300, help="number of queries (default: 300)")
    parser.add_argument("--systems", nargs="+", help="labels of the systems (default: all)")
    parser.add_argument("--cache", type=Path, default=temporary, help="folder that caches the token embeddings")
    parser.add_argument("--results", type=Path, default=temporary / "peers", help="folder of the results")
    parser.add_argument("--reuse", action="store_true", help="take the results of other systems from an earlier run")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds that each process may take")
    parser.add_argument("--plot", type=Path, help="file to draw to")
    arguments = parser.parse_args()
    try:
        chosen = entries(arguments.systems)
    except ValueError as error:
        parser.error(str(error))

    given = collect(arguments.source, arguments.cache, arguments.documents, arguments.questions, _K)
    about = given.about
    folder = arguments.results / f"{about.name}-{about.n_documents}"
    inputs.save(given, folder / "inputs")
    del given
    print(describe_machine())
    title = f"{about.name}, {about.n_documents:,} documents, {about.n_tokens / about.n_documents:.0f} tokens each"
    print(f"{title}, {about.n_queries} queries", flush=True)
    results = []
    for entry in chosen:
        kept = reusable(entry, folder / "inputs", folder) if arguments.reuse and not entry.is_ours else None
        result = kept or run(entry, folder / "inputs", folder, arguments.timeout)
        print(f"{entry.label}: {'reused' if kept else result.get('reason', 'measured')}", flush=True)
        results.append(result)
    print(f"\n{table(results)}\n\n{settings(results)}")
    if arguments.plot:
        draw(results, title, arguments.plot)


if __name__ == "__main__":
    main()

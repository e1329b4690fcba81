"""Space and time of page images: an index of many pages with about 1,000 vectors each.

usage: python tests/benchmarks/pages.py FOLDER [--pages 10000] [--pool-factor 3] [--questions 60] [--optimize]

FOLDER keeps the index. One from an earlier run is measured again, and completed first if that run was interrupted.

The vectors are not of a model: they are drawn, in the shape that models of page images give (ColPali, arXiv 2407.01449:
1,030 vectors of 128 numbers a page). So bytes and times are what such a model's vectors take. Recall says how much of
exact MaxSim's hits is found among vectors of this structure, which is a hard one: what two pages have in common are
single subjects and empty paper, and no page has a theme.

- A page has 32 x 32 patches and 6 tokens of a prompt, which are nearly the same on every page.
- Its patches show 24 of 5,000 subjects, in blocks; 40 % of them show empty paper, which all pages share.
- Patches of one block have a cosine of about .8, those of two subjects of about .2, empty ones of about .9.
- A question of 20 tokens is asked about one page: 14 tokens are near 4 of its subjects (cosine .6), and 6 are markers,
  which are nearly the same in every question.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from machine import describe_machine

from muvera_core import MuveraIndex, StageClock, TokenEmbeddings
from muvera_core.encoders import PrecomputedEmbeddings, pool_tokens
from muvera_core.evaluation.measures import fidelity_at_k
from muvera_core.token_embeddings import FloatArray, IntArray

D, SIDE, N_PROMPT = 128, 32, 6
N_SUBJECTS, SUBJECTS_PER_PAGE, EMPTY = 5000, 24, 0.4
N_WORDS, N_MARKERS, ASKED_SUBJECTS = 14, 6, 4
K, BATCH = 10, 50
FOR_LEARNING = range(100_000, 100_200)  # numbers of questions, different from those that are measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--pool-factor", type=int, default=3, help="1 keeps all vectors (default: 3)")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--optimize", action="store_true", help="let the index learn from 200 other questions first")
    arguments = parser.parse_args()
    print(describe_machine())
    folder = arguments.folder / f"{arguments.pages}-by-{arguments.pool_factor}.muvera"
    with MuveraIndex.open_or_create(folder, ENCODER) as index:
        build(index, arguments.pages, arguments.pool_factor)
        if arguments.optimize:
            began = time.perf_counter()
            tuning = index.optimize(0.95, [f"{arguments.pages} {number}" for number in FOR_LEARNING])
            print(f"optimized in {time.perf_counter() - began:.0f} s: {tuning}", flush=True)
    measure(folder, arguments.pages, arguments.pool_factor, arguments.questions)


def measure(folder: Path, n_pages: int, pool_factor: int, n_questions: int) -> None:
    n_bytes = sum(file.stat().st_size for file in folder.iterdir())
    began = time.perf_counter()
    with MuveraIndex.open(folder, ENCODER, read_only=True) as index:
        print(
            f"{n_pages} pages, pool factor {pool_factor}: {index.n_tokens / n_pages:.0f} vectors and "
            f"{n_bytes / n_pages / 1000:.1f} kB a page, opened in {time.perf_counter() - began:.1f} s",
            flush=True,
        )
        asked = [draw_question(n_pages, number) for number in range(n_questions)]
        exact = index.search_embeddings_batch(asked, K, exact=True)
        expected = [[hit.id for hit in hits] for hits in exact]
        print(f"{'candidates':>10}{'fidelity@10':>13}{'best found':>12}{'median ms':>11}{'p95 ms':>8}  stages, mean ms")
        for n_candidates in sorted({100, 200, 400, 1000, index.default_candidates(K)}):
            report(index, asked, expected, n_candidates)


def build(index: MuveraIndex, n_pages: int, pool_factor: int) -> None:
    """Add the pages that are missing, pooled in one process per core."""
    n = n_pages - len(index)
    batches = [(start, min(start + BATCH, n_pages), pool_factor) for start in range(len(index), n_pages, BATCH)]
    began, pooling = time.perf_counter(), 0.0
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for (start, end, _), (pages, seconds) in zip(batches, pool.map(pooled_pages, batches), strict=True):
            index.add_embeddings(pages, ids=[str(i) for i in range(start, end)])
            pooling += seconds
    if n:
        took = time.perf_counter() - began
        print(
            f"{n} pages added in {took:.0f} s; pooling took {pooling * 1000 / n:.1f} ms a page on one core", flush=True
        )


def pooled_pages(batch: tuple[int, int, int]) -> tuple[TokenEmbeddings, float]:
    """The pages from the first number up to the second, pooled by the third, and the CPU seconds that pooling took."""
    start, end, pool_factor = batch
    pages = TokenEmbeddings.from_list(list(draw_pages(start, end)))
    began = time.process_time()
    pooled = pool_tokens(pages, pool_factor)
    return pooled, time.process_time() - began


def report(index: MuveraIndex, asked: list[FloatArray], expected: list[list[str]], n_candidates: int) -> None:
    for _ in range(2):  # the first round reads the files into memory
        clock = StageClock()
        seconds: list[float] = []
        fidelities: list[float] = []
        best_found: list[bool] = []
        for query, best in zip(asked, expected, strict=True):
            began = time.perf_counter()
            hits = index.search_embeddings(query, K, n_candidates, clock=clock)
            seconds.append(time.perf_counter() - began)
            fidelities.append(fidelity_at_k([hit.id for hit in hits], best, K))
            best_found.append(hits[0].id == best[0])
    ms = np.array(seconds) * 1000
    stages = ", ".join(f"{name} {total * 1000 / len(asked):.1f}" for name, total in clock.seconds.items())
    reranking = clock.seconds["rerank"] * 1e6 / len(asked) / n_candidates
    found = f"{np.mean(fidelities):>13.3f}{np.mean(best_found):>12.3f}"
    took = f"{np.median(ms):>11.1f}{np.percentile(ms, 95):>8.1f}"
    print(f"{n_candidates:>10}{found}{took}  {stages}; {reranking:.0f} us to rerank a page", flush=True)


# Drawing


def unit(vectors: npt.NDArray[Any]) -> FloatArray:
    result: FloatArray = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return result


def directions(seed: int, n: int) -> FloatArray:
    """Directions with a part in common, as the vectors of real models have: a cosine of about .2."""
    rng = np.random.default_rng(seed)
    return unit(unit(rng.standard_normal((n, D))) + 0.5 * unit(np.random.default_rng(0).standard_normal(D)))


def around(centres: FloatArray, share: float, rng: np.random.Generator) -> FloatArray:
    """Unit vectors whose cosine with their centre is about ``share``."""
    noise = unit(rng.standard_normal(centres.shape).astype(np.float32))
    return unit(share * centres + np.sqrt(1 - share**2) * noise)


SUBJECTS, PAPER, PROMPT, MARKERS = (
    directions(1, N_SUBJECTS),
    directions(2, 4),
    directions(3, N_PROMPT),
    directions(4, N_MARKERS),
)


def subjects_of(page: int) -> tuple[IntArray, np.random.Generator]:
    rng = np.random.default_rng([5, page])
    return rng.choice(N_SUBJECTS, SUBJECTS_PER_PAGE, replace=False), rng


def draw_pages(start: int, end: int) -> Iterator[FloatArray]:
    """The vectors of pages, shape (1030, 128) each."""
    for page in range(start, end):
        subjects, rng = subjects_of(page)
        own = around(SUBJECTS[subjects], 0.95, rng)  # a subject looks a little different on each page
        blocks = rng.integers(0, SUBJECTS_PER_PAGE, (SIDE // 4, SIDE // 8))
        shown = np.repeat(np.repeat(blocks, 4, axis=0), 8, axis=1).reshape(-1)
        patches = around(own[shown], 0.9, rng)
        empty = np.repeat(np.repeat(rng.random((SIDE // 2, SIDE // 4)) < EMPTY, 2, axis=0), 4, axis=1).reshape(-1)
        patches[empty] = around(PAPER[rng.integers(0, len(PAPER), empty.sum())], 0.95, rng)
        yield np.concatenate([around(PROMPT, 0.97, rng), patches])


def draw_question(n_pages: int, number: int) -> FloatArray:
    """A question about one of the pages, shape (20, 128)."""
    rng = np.random.default_rng([6, number])
    subjects, _ = subjects_of(int(rng.integers(0, n_pages)))
    about = SUBJECTS[rng.choice(rng.choice(subjects, ASKED_SUBJECTS, replace=False), N_WORDS)]
    return np.concatenate([around(about, 0.6, rng), around(MARKERS, 0.97, rng)])


class DrawnQuestions(PrecomputedEmbeddings):
    """Lets an index ask drawn questions by text: "10000 7" is question 7 about one of 10,000 pages."""

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """The questions' vectors."""
        return TokenEmbeddings.from_list([draw_question(*map(int, text.split())) for text in texts], D)


ENCODER = DrawnQuestions(D, "drawn pages")


if __name__ == "__main__":
    main()

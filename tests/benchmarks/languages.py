"""Which encoder finds what in which language, and what it costs.

usage: python tests/benchmarks/languages.py within DATA [--languages zh ar de en] [--questions N]
       python tests/benchmarks/languages.py across DATA [--languages en de zh ar] [--questions 200]
       python tests/benchmarks/languages.py english FOLDER... [--questions 300]
       python tests/benchmarks/languages.py cost FOLDER

DATA holds the folders xquad-zh, xquad-ar, ... in BEIR's format: the same paragraphs and questions in each language,
with ids such as zh-1. FOLDER is a collection in BEIR's format. ``within`` and ``across`` print the share of questions
whose paragraph is ranked first, ``english`` nDCG@10, all by exact MaxSim. BM25 counts runs of 3 characters, so that it
needs no words; hybrids join its ranking with MaxSim's. Mean-pooled is how the multilingual model is used without
MaxSim. ``cost`` lets the encoders take turns in one process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from machine import describe_machine
from tokenizers import Tokenizer

from muvera_core import TokenEmbeddings, TokenEncoder
from muvera_core.encoders import BundledEncoder, MultilingualEncoder
from muvera_core.encoders.packaged.multilingual import find_folder
from muvera_core.encoders.text.naming import unreported
from muvera_core.evaluation.collections import BeirCollection, read_beir
from muvera_core.evaluation.measures import ndcg_at_k
from muvera_core.maxsim import maxsim_of_many
from muvera_core.token_embeddings import unit_length

K = 10
GRAM = 3  # characters
BM25_K1, BM25_B = 1.2, 0.75
RRF_K = 60  # Cormack et al., SIGIR 2009
QUERIES_TOGETHER = 8
TIMED_PASSAGES, TIMED_QUESTIONS, TIMED_ROUNDS = 64, 50, 7

Scores = npt.NDArray[np.float32]  # (questions, paragraphs)
ENCODERS: Mapping[str, Callable[[], TokenEncoder]] = {
    "BundledEncoder": BundledEncoder,
    "MultilingualEncoder": MultilingualEncoder,
}


@dataclass(frozen=True)
class Parallel:
    """Paragraphs and questions of one language, in an order that is the same in all languages.

    Attributes:
        paragraphs: their texts.
        questions: their texts.
        answers: for each question the place of its paragraph.
    """

    paragraphs: list[str]
    questions: list[str]
    answers: npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run, languages, questions in ((within, "zh ar de en", None), (across, "en de zh ar", 200)):
        command = commands.add_parser(run.__name__)
        command.add_argument("data", type=Path, metavar="DATA")
        command.add_argument("--languages", nargs="+", default=languages.split())
        command.add_argument(
            "--questions", type=int, default=questions, help=f"number drawn (default: {questions or 'all'})"
        )
        command.set_defaults(run=run)
    command = commands.add_parser("english")
    command.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    command.add_argument("--questions", type=int, default=300, help="number, evenly spread (default: 300)")
    command.set_defaults(run=english)
    command = commands.add_parser("cost")
    command.add_argument("folder", type=Path, metavar="FOLDER")
    command.set_defaults(run=cost)
    arguments = vars(parser.parse_args())
    print(describe_machine())
    arguments.pop("run")(**arguments)


def within(data: Path, languages: Sequence[str], questions: int | None) -> None:
    """Questions and paragraphs in the same language."""
    for language in languages:
        read = read_parallel(data / f"xquad-{language}", questions)
        print(f"{language}: {len(read.paragraphs)} paragraphs, {len(read.questions)} questions")
        keywords = bm25(read)
        report("BM25 on 3-grams", first(keywords, read.answers))
        for name, encoder in ENCODERS.items():
            documents, queries = encode(encoder(), read.paragraphs, read.questions)
            found = maxsim(queries, documents)
            report(name, first(found, read.answers))
            if name == "MultilingualEncoder":
                pooled_queries, pooled = pool(read.questions, "query"), pool(read.paragraphs, "document")
                report("its model, mean-pooled", first(pooled_queries @ pooled.T, read.answers))
                report("hybrid, sum", first(scaled(found) + scaled(keywords), read.answers))
                report("hybrid, ranks", first(by_rank(found) + by_rank(keywords), read.answers))


def across(data: Path, languages: Sequence[str], questions: int | None) -> None:
    """Questions in one language, paragraphs in another."""
    read = {language: read_parallel(data / f"xquad-{language}", questions) for language in languages}
    encoder = MultilingualEncoder()
    encoded = {name: encode(encoder, each.paragraphs, each.questions) for name, each in read.items()}
    pooled = {name: (pool(each.paragraphs, "document"), pool(each.questions, "query")) for name, each in read.items()}
    print(f"{questions or 'all'} questions; MultilingualEncoder / its model, mean-pooled")
    print(f"{'asked in':>10}" + "".join(f"{language:>14}" for language in languages))
    for asked in languages:
        cells = []
        for written in languages:
            queries, documents = encoded[asked][1], encoded[written][0]
            answers = read[written].answers
            by_one_vector = first(pooled[asked][1] @ pooled[written][0].T, answers)
            cells.append(f"{first(maxsim(queries, documents), answers):.3f} / {by_one_vector:.3f}")
        print(f"{asked:>10}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


def english(folders: Sequence[Path], questions: int) -> None:
    """nDCG@10 on English collections."""
    for folder in folders:
        collection = read_beir(folder)
        asked = list(collection.queries)[:: max(1, len(collection.queries) // questions)][:questions]
        print(f"{folder.name}: {len(collection.ids)} passages, {len(asked)} questions", flush=True)
        for name, encoder in ENCODERS.items():
            documents, queries = encode(encoder(), collection.texts, [collection.queries[id] for id in asked])
            report(name, ndcg(maxsim(queries, documents), collection, asked))


def cost(folder: Path) -> None:
    """Passages per second, time per question, size and memory."""
    collection = read_beir(folder)
    passages = [collection.texts[i] for i in np.linspace(0, len(collection.texts) - 1, TIMED_PASSAGES).astype(int)]
    questions = list(collection.queries.values())[:TIMED_QUESTIONS]
    encoders = {name: encoder() for name, encoder in ENCODERS.items()}
    rates: dict[str, list[float]] = {name: [] for name in encoders}
    waits: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(TIMED_ROUNDS):
        for name, encoder in encoders.items():
            rates[name].append(TIMED_PASSAGES / seconds(partial(encoder.encode_documents, passages)))
            waits[name] += [1000 * seconds(partial(encoder.encode_queries, [question])) for question in questions]
    for name, encoder in encoders.items():
        n_tokens = len(encoder.encode_documents(passages).vectors) / TIMED_PASSAGES
        rate, wait = median(rates[name]), median(waits[name])
        base_rate, base_wait = (median(each["BundledEncoder"]) for each in (rates, waits))
        start, memory = process_cost(name)
        print(
            f"{name}: {rate:.1f} passages/s of {n_tokens:.0f} tokens ({rate / base_rate:.2f} x), "
            f"{wait:.1f} ms a question ({wait / base_wait:.2f} x), "
            f"ready in {start:.2f} s, {memory:.0f} MB more memory, {4 * encoder.dimension} bytes a token as float32"
        )


def process_cost(name: str) -> tuple[float, float]:
    """Seconds until a new process has encoded a question, without imports, and the MB of memory that it takes."""
    code = (
        "import time; from pathlib import Path; import onnxruntime, tokenizers; from muvera_core import encoders\n"
        "def resident(): return int(Path('/proc/self/statm').read_text().split()[1]) * 4096 / 1e6\n"
        f"before, started = resident(), time.perf_counter(); encoder = encoders.{name}()\n"
        "encoder.encode_queries(['Who wrote Faust?']); print(time.perf_counter() - started, resident() - before)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    started, memory = map(float, output.split())
    return started, memory


def read_parallel(folder: Path, n_questions: int | None) -> Parallel:
    """The paragraphs and questions of a language. Fewer questions are drawn at random, the same in all languages."""
    collection = read_beir(folder)
    ids = {bare(id): i for i, id in enumerate(collection.ids)}
    asked = sorted(collection.queries, key=bare)
    if n_questions is not None:
        asked = [asked[i] for i in np.random.default_rng(0).choice(len(asked), n_questions, replace=False)]
    answers = [ids[bare(next(iter(collection.relevance[id])))] for id in asked]
    return Parallel(collection.texts, [collection.queries[id] for id in asked], np.array(answers))


def bare(id: str) -> str:
    """An id without its language."""
    return id.split("-", 1)[1]


def encode(
    encoder: TokenEncoder, paragraphs: Sequence[str], questions: Sequence[str]
) -> tuple[TokenEmbeddings, TokenEmbeddings]:
    with unreported():
        return encoder.encode_documents(paragraphs), encoder.encode_queries(questions)


def maxsim(queries: TokenEmbeddings, documents: TokenEmbeddings) -> Scores:
    found: list[npt.NDArray[np.float32]] = []
    for start in range(0, len(queries), QUERIES_TOGETHER):
        batch = [queries[i] for i in range(start, min(start + QUERIES_TOGETHER, len(queries)))]
        found += list(maxsim_of_many(batch, documents.vectors, None, documents.offsets))
    return np.stack(found)


@cache
def states_session() -> onnxruntime.InferenceSession:
    """The multilingual model with the states before they are centred as its output."""
    model = onnx.load(find_folder() / "model.onnx")
    [squeezed] = [node.output[0] for node in model.graph.node if node.op_type == "Squeeze"]
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(squeezed, onnx.TensorProto.FLOAT, None))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def pool(texts: Sequence[str], kind: str) -> npt.NDArray[np.float32]:
    """One vector of unit length per text, as the model was trained for: the mean of the states of all its tokens."""
    prefix = json.loads((find_folder() / "encoder.json").read_text(encoding="utf-8"))[f"{kind}_prefix"]
    tokenizer = Tokenizer.from_file(str(find_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    ids = [encoding.ids for encoding in tokenizer.encode_batch([f"{prefix} {text}" for text in texts])]
    states = (states_session().run(None, {"input_ids": np.array([each])})[0] for each in ids)
    return unit_length(np.stack([each.mean(axis=0) for each in states]))


def bm25(read: Parallel) -> Scores:
    """BM25 over runs of 3 characters."""
    counts = [grams(text) for text in read.paragraphs]
    places = {gram: i for i, gram in enumerate(sorted({gram for count in counts for gram in count}))}
    frequencies = np.zeros((len(counts), len(places)), dtype=np.float32)
    for i, count in enumerate(counts):
        for gram, n in count.items():
            frequencies[i, places[gram]] = n
    lengths = frequencies.sum(axis=1, keepdims=True)
    in_documents = (frequencies > 0).sum(axis=0)
    weights = np.log(1 + (len(counts) - in_documents + 0.5) / (in_documents + 0.5))
    damped = frequencies + BM25_K1 * (1 - BM25_B + BM25_B * lengths / lengths.mean())
    table = (frequencies * (BM25_K1 + 1) / damped * weights).T
    found = [[places[gram] for gram in grams(question) if gram in places] for question in read.questions]
    return np.stack([table[known].sum(axis=0) for known in found]).astype(np.float32)


def grams(text: str) -> Counter[str]:
    folded = f" {' '.join(text.casefold().split())} "
    return Counter(folded[i : i + GRAM] for i in range(len(folded) - GRAM + 1))


def scaled(scores: Scores) -> Scores:
    """The scores of each question from 0 to 1."""
    low, high = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    spread: Scores = (scores - low) / np.maximum(high - low, 1e-9)
    return spread


def by_rank(scores: Scores) -> Scores:
    """Reciprocal ranks."""
    ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable") + 1
    return (1 / (RRF_K + ranks)).astype(np.float32)


def first(scores: Scores, answers: npt.NDArray[np.int64]) -> float:
    """The share of questions whose paragraph has the highest score."""
    return float((scores.argmax(axis=1) == answers).mean())


def ndcg(scores: Scores, collection: BeirCollection, asked: Sequence[str]) -> float:
    gains = []
    for row, id in zip(scores, asked, strict=True):
        best = np.argsort(-row, kind="stable")[:K]
        gains.append(ndcg_at_k([collection.ids[i] for i in best], collection.relevance[id], K))
    return float(np.mean(gains))


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def report(name: str, value: float) -> None:
    print(f"  {name:<28}{value:.3f}", flush=True)


if __name__ == "__main__":
    main()

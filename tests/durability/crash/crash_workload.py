"""A seeded script of writes, and what the index must hold after each of them.

Everything here is a pure function of the seed, so that the process that crashes and the one that judges agree.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from muvera_core import FDEConfig, MuveraIndex, TokenEmbeddings, repair_index
from muvera_core.collection import writer
from muvera_core.encoders import PrecomputedEmbeddings
from muvera_core.stage_one import flat, hnsw, stage_one
from muvera_core.storage import change, store

D = 8
FDE = FDEConfig(dimension=D, num_repetitions=2, num_simhash_projections=2, projection_dimension=4)
GROUPS = ("red", "green", "blue")
# Ids come from so few that replacements and deletions mostly hit.
N_IDS = 24
# So that scripts of a few dozen documents go where otherwise thousands do: into a graph, ...
FLAT_LIMIT = 10
GRAPH_CAPACITY = 8
# ... to saving stage one before the index is closed, ...
MIN_TO_SAVE = 12
# ... and to a compaction that nobody asked for, in many steps.
MIN_WASTE = 200
COPY_BATCH = 3
VACUUM_PAGES = 1

FloatArray = npt.NDArray[np.float32]
Kind = Literal["create", "add", "delete", "delete_where", "compact", "reopen", "repair"]
# What the folder is at the start: not there; not there, for a short script; of the oldest format; damaged.
Scenario = Literal["life", "create", "migration", "repair"]
FIRST: dict[Scenario, Kind] = {"life": "create", "create": "create", "migration": "reopen", "repair": "repair"}


@dataclass(frozen=True, eq=False)
class Doc:
    """A document as the index must return it."""

    id: str
    text: str | None
    metadata: dict[str, Any]
    tokens: FloatArray


@dataclass(frozen=True)
class Operation:
    """One call of the index. ``docs`` are to be added; ``ids`` or the ``group`` are to be deleted."""

    kind: Kind
    docs: tuple[Doc, ...] = ()
    ids: tuple[str, ...] = ()
    group: str = ""

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(self.ids or [doc.id for doc in self.docs]) or self.group})"


# Documents by id, in the order of addition.
Model = Mapping[str, Doc]


def exact_tokens(rng: np.random.Generator) -> FloatArray:
    """Token vectors that int8 storage keeps to the last bit but one: multiples of 1/127, the largest 127 of them."""
    codes = rng.integers(-127, 128, (int(rng.integers(1, 7)), D))
    codes[np.arange(len(codes)), rng.integers(0, D, len(codes))] = 127
    return (codes / 127).astype(np.float32)


def tokens_of(text: str) -> FloatArray:
    return exact_tokens(np.random.default_rng(zlib.crc32(text.encode())))


class Encoder(PrecomputedEmbeddings):
    """Gives a text the tokens that its document was added with, so that a repair can make them again."""

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        return TokenEmbeddings.from_list([tokens_of(text) for text in texts])


ENCODER = Encoder(D, "crash")


def make_script(seed: int, n_operations: int, scenario: Scenario = "life") -> list[Operation]:
    """The scenario's first operation, then ``n_operations`` more."""
    rng = np.random.default_rng(seed)
    script = [Operation(FIRST[scenario])]
    for number in range(1, n_operations + 1):
        kind: Kind = rng.choice(["add", "delete", "delete_where", "compact", "reopen"], p=[0.58, 0.14, 0.06, 0.1, 0.12])
        ids = tuple(f"d{i}" for i in rng.permutation(N_IDS)[: rng.integers(1, 6)])
        if kind == "add" or (number == 1 and scenario == "create"):
            script.append(Operation("add", docs=make_docs(rng, ids, number)))
        elif kind == "delete":
            script.append(Operation("delete", ids=ids))
        elif kind == "delete_where":
            script.append(Operation("delete_where", group=str(rng.choice(GROUPS))))
        else:
            script.append(Operation(kind))
    return script


def make_docs(rng: np.random.Generator, ids: Sequence[str], number: int) -> tuple[Doc, ...]:
    """Documents of one addition, all with a text or all without."""
    docs = []
    has_texts = rng.random() < 0.8
    for id in ids:
        metadata = {"group": str(rng.choice(GROUPS)), "operation": number, "nested": {"tag": id}}
        # Now and then a text of several database pages.
        text = (f"{id} as operation {number} wrote it. " * int(rng.choice([1, 1, 1, 400]))).strip()
        docs.append(Doc(id, text if has_texts else None, metadata, tokens_of(text)))
    return tuple(docs)


def apply(model: Model, operation: Operation) -> Model:
    """The documents after an operation."""
    after = dict(model)
    for id in operation.ids:
        after.pop(id, None)
    for doc in operation.docs:
        after.pop(doc.id, None)
        after[doc.id] = doc
    if operation.kind == "delete_where":
        after = {id: doc for id, doc in after.items() if doc.metadata["group"] != operation.group}
    return after


def models_of(script: list[Operation], start: Model) -> list[Model]:
    """``models_of(script, start)[n]``: the documents once the first ``n`` operations have returned."""
    models: list[Model] = [start]
    for operation in script:
        models.append(apply(models[-1], operation))
    return models


def perform(index: MuveraIndex | None, operation: Operation, folder: Path) -> MuveraIndex:
    """Do an operation; gives the index to go on with, which is another one after ``reopen`` and ``repair``."""
    if operation.kind == "create":
        return MuveraIndex.create(folder, ENCODER, FDE)
    if operation.kind in ("reopen", "repair"):
        if index is not None:
            index.close()
        if operation.kind == "repair":
            repair_index(folder, ENCODER)
        return MuveraIndex.open(folder, ENCODER)
    assert index is not None
    if operation.kind == "add":
        add(index, operation.docs)
    elif operation.kind == "delete":
        index.delete(list(operation.ids))
    elif operation.kind == "delete_where":
        index.delete(filter={"group": operation.group})
    else:
        index.compact()
    return index


def add(index: MuveraIndex, docs: Sequence[Doc]) -> None:
    texts = [doc.text for doc in docs if doc.text is not None]
    index.add_embeddings(
        [doc.tokens for doc in docs], [doc.id for doc in docs], texts or None, [doc.metadata for doc in docs]
    )


def use_small_limits() -> None:
    """Let a few dozen documents go where otherwise thousands do. For child processes: it changes the modules."""
    stage_one.FLAT_LIMIT = FLAT_LIMIT
    writer._MIN_TO_SAVE = MIN_TO_SAVE
    store._MIN_WASTE = MIN_WASTE
    store._VACUUM_PAGES = VACUUM_PAGES
    for module, name, value in (
        (flat, "INITIAL_CAPACITY", GRAPH_CAPACITY),
        (hnsw, "INITIAL_CAPACITY", GRAPH_CAPACITY),
        (store, "COPY_BATCH", COPY_BATCH),
        (change, "COPY_BATCH", COPY_BATCH),
    ):
        assert hasattr(module, name)
        setattr(module, name, value)

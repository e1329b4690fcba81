"""A seeded script of writes, and what the index must hold after each of them.

Everything here is a pure function of the seed, so that the process that crashes and the one that judges agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from muvera_core import FDEConfig, MuveraIndex, candidates, stage_one
from muvera_core.encoders import PrecomputedEmbeddings

D = 8
ENCODER = PrecomputedEmbeddings(D, "crash")
FDE = FDEConfig(dimension=D, num_repetitions=2, num_simhash_projections=2, projection_dimension=4)
GROUPS = ("red", "green", "blue")
# Ids come from so few that replacements and deletions mostly hit.
N_IDS = 24
# So that scripts of a few dozen documents move stage one into a graph and write its files.
FLAT_LIMIT = 10
GRAPH_CAPACITY = 8

FloatArray = npt.NDArray[np.float32]
Kind = Literal["create", "add", "delete", "delete_where", "compact", "reopen"]


@dataclass(frozen=True, eq=False)
class Doc:
    """A document as the index must return it."""

    id: str
    text: str
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


def make_script(seed: int, n_operations: int) -> list[Operation]:
    """``create``, then ``n_operations`` more."""
    rng = np.random.default_rng(seed)
    script = [Operation("create")]
    for number in range(1, n_operations + 1):
        kind: Kind = rng.choice(["add", "delete", "delete_where", "compact", "reopen"], p=[0.58, 0.14, 0.06, 0.1, 0.12])
        ids = tuple(f"d{i}" for i in rng.permutation(N_IDS)[: rng.integers(1, 6)])
        if kind == "add":
            docs = []
            for id in ids:
                metadata = {"group": str(rng.choice(GROUPS)), "operation": number, "nested": {"tag": id}}
                # Now and then a text of several database pages.
                text = f"{id} as operation {number} wrote it. " * int(rng.choice([1, 1, 1, 400]))
                docs.append(Doc(id, text.strip(), metadata, exact_tokens(rng)))
            script.append(Operation("add", docs=tuple(docs)))
        elif kind == "delete":
            script.append(Operation("delete", ids=ids))
        elif kind == "delete_where":
            script.append(Operation("delete_where", group=str(rng.choice(GROUPS))))
        else:
            script.append(Operation(kind))
    return script


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


def models_of(script: list[Operation]) -> list[Model]:
    """``models_of(script)[n]``: the documents once the first ``n`` operations have returned."""
    models: list[Model] = [{}]
    for operation in script:
        models.append(apply(models[-1], operation))
    return models


def perform(index: MuveraIndex | None, operation: Operation, folder: Path) -> MuveraIndex:
    """Do an operation; gives the index to go on with, which is another one after ``reopen``."""
    if operation.kind == "create":
        return MuveraIndex.create(folder, ENCODER, FDE)
    if operation.kind == "reopen":
        if index is not None:
            index.close()
        return MuveraIndex.open(folder, ENCODER)
    assert index is not None
    if operation.kind == "add":
        index.add_embeddings(
            [doc.tokens for doc in operation.docs],
            [doc.id for doc in operation.docs],
            [doc.text for doc in operation.docs],
            [doc.metadata for doc in operation.docs],
        )
    elif operation.kind == "delete":
        index.delete(list(operation.ids))
    elif operation.kind == "delete_where":
        index.delete(filter={"group": operation.group})
    elif hasattr(index, "compact"):
        index.compact()
    return index


def use_small_limits() -> None:
    """Let a few dozen documents go where otherwise thousands do. For child processes: it changes the modules."""
    stage_one.FLAT_LIMIT = FLAT_LIMIT
    candidates.INITIAL_CAPACITY = GRAPH_CAPACITY

"""An error says what to do in the words of the package that was used, not in those of the core's calls."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from langchain_muvera import MuveraEmbeddings, MuveraRetriever, MuveraVectorStore
from muvera_core import FDEConfig, MuveraError, MuveraIndex, TextEncoder
from muvera_core.encoders import BundledEncoder, PrecomputedEmbeddings
from muvera_core.errors import (
    IndexClosedError,
    IndexExistsError,
    InvalidInputError,
    NotAnIndexError,
    ReadOnlyIndexError,
)

LAMPS = ["The lamp is lit.", "The stove is cold."]
CORE = [name for owner in (MuveraIndex, TextEncoder) for name in dir(owner) if not name.startswith("_")]
STORE = dir(MuveraVectorStore)


def closed(folder: Path, encoder: BundledEncoder) -> MuveraVectorStore:
    store = MuveraVectorStore.load(folder, encoder)
    store.close()
    return store


FAULTS: dict[str, tuple[Callable[[Path, BundledEncoder], Any], type[MuveraError]]] = {
    "search": (lambda folder, encoder: closed(folder, encoder).similarity_search("lamp"), IndexClosedError),
    "retrieve": (lambda f, e: MuveraRetriever(index=closed(f, e).index).invoke("lamp"), IndexClosedError),
    "add": (lambda folder, encoder: closed(folder, encoder).add_texts(LAMPS), IndexClosedError),
    "pickle": (lambda folder, encoder: pickle.dumps(closed(folder, encoder)), MuveraError),
    "copy": (lambda folder, encoder: copy.deepcopy(closed(folder, encoder)), MuveraError),
    "from_texts": (lambda f, e: MuveraVectorStore.from_texts(LAMPS, path=f, encoder=e), IndexExistsError),
    "save": (lambda f, e: MuveraVectorStore.from_texts(LAMPS, encoder=e).save(f), IndexExistsError),
    "load": (lambda folder, encoder: MuveraVectorStore.load(folder / "none", encoder), NotAnIndexError),
    "read only": (lambda f, e: MuveraVectorStore.load(f, e, read_only=True).clear(), ReadOnlyIndexError),
    "lambda_mult": (
        lambda f, e: MuveraVectorStore.load(f, e, read_only=True).max_marginal_relevance_search("a", lambda_mult=2),
        InvalidInputError,
    ),
    "vector": (
        lambda f, e: MuveraVectorStore.load(f, e, read_only=True).similarity_search_by_vector([1.0]),
        InvalidInputError,
    ),
    "center": (lambda folder, encoder: MuveraEmbeddings(encoder, FDEConfig(center=True)), InvalidInputError),
    "empty filter": (
        lambda f, e: MuveraVectorStore.load(f, e, read_only=True).delete(filter={}), InvalidInputError
    ),
    "store": (lambda folder, encoder: MuveraVectorStore(str(folder)), InvalidInputError),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_messages_name_no_call_that_the_package_lacks(fault: str, tmp_path: Path, encoder: BundledEncoder) -> None:
    MuveraVectorStore.from_texts(LAMPS, path=tmp_path / "lamps", encoder=encoder).close()
    cause, kind = FAULTS[fault]
    with pytest.raises(kind) as raised:
        cause(tmp_path / "lamps", encoder)
    message = str(raised.value)
    assert "MuveraIndex." not in message
    assert "TextEncoder" not in message
    words = {word.strip(".,:;()") for word in message.split() if word.endswith("()") or "_" in word}
    assert not words & (set(CORE) - set(STORE)), message


def test_a_store_of_token_vectors_says_whose_calls_to_use() -> None:
    encoder = PrecomputedEmbeddings(4, "lamps")
    with pytest.raises(InvalidInputError, match="add_embeddings and search_embeddings of the index"):
        MuveraVectorStore.from_texts(LAMPS, encoder=encoder)

"""Components that were pickled, or made from a dictionary, work alike. What cannot travel says why."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.retrievers.muvera import MaxSimRerank, MuveraEmbedding, MuveraRetriever, MuveraVectorStore, NoEmbedding

from muvera_core import FDEConfig, MuveraIndex, TokenEmbeddings, TokenEncoder
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError, MuveraError

TEXTS = ["otters swim in cold water", "herons wait"]
FDE = FDEConfig(dimension=128, num_repetitions=3, seed=5)


class Negated(BundledEncoder):
    """Stands for another model: other vectors, another fingerprint."""

    fingerprint = "negated"

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        encoded = super().encode_documents(texts)
        return TokenEmbeddings(-encoded.vectors, encoded.offsets)


def _pickled(component: Any) -> Any:
    return pickle.loads(pickle.dumps(component))  # noqa: S301 - its own bytes


EMBEDDINGS: dict[str, Callable[[], BaseEmbedding]] = {
    "defaults": lambda: MuveraEmbedding(),
    "another FDE": lambda: MuveraEmbedding(fde=FDE, embed_batch_size=7),
    "plain": lambda: MuveraEmbedding(normalize=False, num_workers=2),
    "another encoder": lambda: MuveraEmbedding(Negated()),
    "placeholder": lambda: NoEmbedding(embed_batch_size=3),
}


@pytest.mark.parametrize("way", [_pickled, copy.deepcopy], ids=["pickle", "copy"])
@pytest.mark.parametrize("case", list(EMBEDDINGS))
def test_a_copy_of_an_embedding_works_alike(case: str, way: Callable[[Any], Any]) -> None:
    model = EMBEDDINGS[case]()
    twin = way(model)
    assert twin.to_dict() == model.to_dict()
    assert twin.get_text_embedding_batch(TEXTS) == model.get_text_embedding_batch(TEXTS)
    assert twin.get_query_embedding("cold") == model.get_query_embedding("cold")


@pytest.mark.parametrize("case", ["another FDE", "another encoder", "placeholder"])
def test_workers_of_a_pipeline_embed_as_the_pipeline_does(case: str) -> None:
    documents = [Document(id_=str(i), text=text) for i, text in enumerate(TEXTS)]
    alone, together = (
        IngestionPipeline(transformations=[EMBEDDINGS[case]()], disable_cache=True).run(
            documents=documents, num_workers=workers, in_place=False
        )
        for workers in (None, 2)
    )
    expected, got = ({node.node_id: node.embedding for node in nodes} for nodes in (alone, together))
    assert list(got) == list(expected)
    np.testing.assert_allclose(list(got.values()), list(expected.values()), atol=1e-5)  # type: ignore[arg-type]


def test_a_copy_of_a_reranker_works_alike() -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    rerank = MaxSimRerank(
        Negated(), top_n=1, batch_size=3, keep_retrieval_score=True, callback_manager=CallbackManager([debug])
    )
    rerank.top_n = 2
    twin = _pickled(rerank)
    assert twin.to_dict() == rerank.to_dict()
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]
    assert twin.postprocess_nodes(nodes, query_str="cold") == rerank.postprocess_nodes(nodes, query_str="cold")
    assert twin.callback_manager.handlers == []  # handlers belong to the process


def test_a_cache_travels_with_its_embedding(words: TokenEncoder) -> None:
    model = MuveraEmbedding(words, embeddings_cache=SimpleKVStore())
    model.get_text_embedding("otters")
    twin = _pickled(model)
    assert twin.embeddings_cache.get_all("embeddings") == model.embeddings_cache.get_all("embeddings")  # type: ignore[union-attr]


def test_an_encoder_that_cannot_be_pickled_is_not_left_behind(words: TokenEncoder) -> None:
    words = copy.copy(words)
    words.lock = threading.Lock()  # type: ignore[attr-defined]
    for component in (MuveraEmbedding(words), MaxSimRerank(words)):
        with pytest.raises(InvalidInputError, match=f"this {type(component).__name__} cannot be pickled.*WordEncoder"):
            pickle.dumps(component)


# Dictionaries and JSON


@pytest.mark.parametrize("case", ["defaults", "another FDE", "plain", "placeholder"])
def test_a_dictionary_holds_the_settings_of_an_embedding(case: str) -> None:
    model = EMBEDDINGS[case]()
    for twin in (type(model).from_dict(model.to_dict()), type(model).from_json(model.to_json())):
        assert twin.to_dict() == model.to_dict()
        assert twin.get_text_embedding("otters") == model.get_text_embedding("otters")


def test_a_dictionary_keeps_the_dimension_of_the_bundled_encoder() -> None:
    narrow = BundledEncoder(dimension=64)
    for component in (MuveraEmbedding(narrow), MaxSimRerank(narrow, top_n=3)):
        assert type(component).from_dict(component.to_dict()).to_dict() == component.to_dict()
        assert type(component).from_json(component.to_json()).to_dict() == component.to_dict()


def test_a_dictionary_of_a_component_with_another_encoder_needs_it(words: TokenEncoder) -> None:
    model, rerank = MuveraEmbedding(words), MaxSimRerank(words, top_n=3)
    for component, arguments in ((model, "encoder= and fde="), (rerank, "encoder=")):
        with pytest.raises(InvalidInputError, match=f"'words.*pass {arguments}"):
            type(component).from_dict(component.to_dict())
        with pytest.raises(InvalidInputError, match=f"'words.*pass {arguments}"):
            type(component).from_json(component.to_json())
        assert type(component).from_dict(component.to_dict(), encoder=words).to_dict() == component.to_dict()


# What holds an index


def test_what_holds_an_open_index_does_not_travel(tmp_path: Path, words: TokenEncoder) -> None:
    with MuveraIndex.create(tmp_path / "index", words) as index:
        store = MuveraVectorStore(index)
        for holder in (store, MuveraRetriever(index)):
            with pytest.raises(MuveraError, match=rf"cannot be pickled.*{type(holder).__name__}\.from_persist_dir"):
                pickle.dumps(holder)
            with pytest.raises(MuveraError, match="cannot be pickled"):
                copy.deepcopy(holder)
        with pytest.raises(InvalidInputError, match="from_persist_dir"):
            MuveraVectorStore.from_dict(store.to_dict())
        with pytest.raises(InvalidInputError, match="from_persist_dir"):
            MuveraVectorStore.from_json(store.to_json())

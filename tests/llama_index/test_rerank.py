from __future__ import annotations

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.base import BaseEvent  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.retrievers.muvera import MaxSimRerank, MuveraRetriever

from muvera_core import MuveraIndex, TokenEncoder
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError

TEXTS = {"ant": "ants live in colonies", "bat": "bats hunt at night", "owl": "owls hunt at night"}


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(id_=id, text=text), score=0.1) for id, text in TEXTS.items()]


def test_class() -> None:
    assert BaseNodePostprocessor.__name__ in [base.__name__ for base in MaxSimRerank.__mro__]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_it_ranks_by_maxsim(words: TokenEncoder, nodes: list[NodeWithScore], batch_size: int) -> None:
    rerank = MaxSimRerank(words, top_n=2, batch_size=batch_size)
    best = rerank.postprocess_nodes(nodes, query_str="owls night")
    assert [node.node_id for node in best] == ["owl", "bat"]
    assert best[0].score == pytest.approx(1)


def test_scores_are_those_of_the_retriever(nq_index: MuveraIndex) -> None:
    question = "who got the first nobel prize in physics"
    found = MuveraRetriever(nq_index, similarity_top_k=5).retrieve(question)
    bare = [NodeWithScore(node=TextNode(id_=node.node_id, text=node.text)) for node in found]
    assert isinstance(nq_index.encoder, BundledEncoder)
    reranked = MaxSimRerank(nq_index.encoder).postprocess_nodes(bare[::-1], query_str=question)
    scores = [node.score or 0 for node in reranked]
    assert scores == sorted(scores, reverse=True)
    # The index keeps token vectors in 8 bits, so two passages of nearly the same score can change places.
    expected = {node.node_id: node.score for node in found}
    assert {node.node_id: node.score for node in reranked} == pytest.approx(expected, abs=2e-3)


def test_the_nodes_passed_in_stay_as_they_are(words: TokenEncoder, nodes: list[NodeWithScore]) -> None:
    (best,) = MaxSimRerank(words, top_n=1, keep_retrieval_score=True).postprocess_nodes(nodes, query_str="owls")
    assert best.metadata == {"retrieval_score": 0.1}
    assert [(node.score, node.metadata) for node in nodes] == [(0.1, {})] * 3
    assert [node.node_id for node in nodes] == list(TEXTS)


def test_metadata_that_would_be_embedded_count(words: TokenEncoder) -> None:
    seen = TextNode(id_="seen", text="about birds", metadata={"title": "owls"})
    hidden = TextNode(id_="hidden", text="about birds", metadata={"title": "owls"})
    hidden.excluded_embed_metadata_keys = ["title"]
    nodes = [NodeWithScore(node=node) for node in (hidden, seen)]
    assert MaxSimRerank(words, top_n=1).postprocess_nodes(nodes, query_str="owls")[0].node_id == "seen"


def test_a_node_without_text_comes_last(words: TokenEncoder, nodes: list[NodeWithScore]) -> None:
    nodes.insert(0, NodeWithScore(node=TextNode(id_="blank", text=" ")))
    last = MaxSimRerank(words, top_n=10).postprocess_nodes(nodes, query_str="owls hunt ants")[-1]
    assert (last.node_id, last.score) == ("blank", 0)


@pytest.mark.parametrize("question", ["", "\u200b"])
def test_an_empty_question_leaves_the_order(words: TokenEncoder, nodes: list[NodeWithScore], question: str) -> None:
    reranked = MaxSimRerank(words, top_n=2).postprocess_nodes(nodes, query_str=question)
    assert [(node.node_id, node.score) for node in reranked] == [("ant", 0), ("bat", 0)]


def test_texts_that_nothing_can_match_are_ranked_last(words: TokenEncoder, nodes: list[NodeWithScore]) -> None:
    bad = [
        NodeWithScore(node=TextNode(id_=id, text=text)) for id, text in (("zero width", "\u200b"), ("half", "\ud83e"))
    ]
    reranked = MaxSimRerank(words, top_n=5).postprocess_nodes(bad + nodes, query_str="owls hunt")
    assert [node.node_id for node in reranked[:2]] == ["owl", "bat"]
    assert {node.node_id for node in reranked[2:]} == {"ant", "zero width", "half"}


async def test_async_and_nothing_to_rank(words: TokenEncoder, nodes: list[NodeWithScore]) -> None:
    rerank = MaxSimRerank(words)
    sync = rerank.postprocess_nodes(nodes, QueryBundle("owls"))
    assert await rerank.apostprocess_nodes(nodes, QueryBundle("owls")) == sync
    assert rerank.postprocess_nodes([], query_str="owls") == []


def test_a_query_is_needed(words: TokenEncoder, nodes: list[NodeWithScore]) -> None:
    with pytest.raises(InvalidInputError, match="no query"):
        MaxSimRerank(words).postprocess_nodes(nodes)


def test_events_tell_what_happens(words: TokenEncoder, nodes: list[NodeWithScore]) -> None:
    seen: list[BaseEvent] = []

    class Recorder(BaseEventHandler):
        def handle(self, event: BaseEvent, **kwargs: object) -> None:
            seen.append(event)

    dispatcher, recorder = get_dispatcher(), Recorder()
    dispatcher.add_event_handler(recorder)
    debug = LlamaDebugHandler(print_trace_on_end=False)
    try:
        rerank = MaxSimRerank(words, top_n=2, callback_manager=CallbackManager([debug]))
        best = rerank.postprocess_nodes(nodes, query_str="owls")
    finally:
        dispatcher.event_handlers.remove(recorder)
    start, end = [event for event in seen if isinstance(event, (ReRankStartEvent, ReRankEndEvent))]
    assert isinstance(start, ReRankStartEvent)
    assert isinstance(end, ReRankEndEvent)
    assert (len(start.nodes), start.top_n, start.model_name) == (3, 2, "words")
    assert end.nodes == best
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1

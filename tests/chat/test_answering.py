from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from chat_models import FailingModel, SlowModel

from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError

pytest.importorskip("muvera_chat", reason="needs muvera-core[chat]")

from muvera_chat import Answerer, AnsweringSettings, Conversation, Turn
from muvera_chat.answering.following_up import points_back, with_words_before
from muvera_chat.answering.quoting import sentences_of

TEXTS = {
    "owl": "Barn owls hunt at night. They nest in church towers and barns. A pair raises up to seven young.",
    "bread": "Rye bread is baked from a sourdough of rye flour. It keeps for two weeks.",
    "tide": "Tides follow the moon. Spring tides come when sun, moon and earth stand in a line.",
}
HUNT = "When do barn owls hunt?"


@pytest.fixture(scope="module")
def index(encoder: BundledEncoder) -> Iterator[MuveraIndex]:
    with MuveraIndex.create(None, encoder) as made:
        metadatas = [{"indexed_from": {"file": f"notes/{id}.md"}, "page": 3, "heading": "A > B"} for id in TEXTS]
        made.add(TEXTS.values(), ids=TEXTS.keys(), metadatas=metadatas)
        yield made


def last(turns: Iterator[Turn]) -> Turn:
    *_, turn = turns
    return turn


def test_without_a_model_the_best_sentence_is_quoted(index: MuveraIndex) -> None:
    turn = last(Answerer(index).ask(HUNT, Conversation()))
    assert turn.status == "answered"
    assert [(quote.text, quote.number) for quote in turn.quotes] == [("Barn owls hunt at night.", 1)]
    assert turn.answer == "Barn owls hunt at night. [1]"
    assert turn.cited == [1]
    source = turn.sources[0]
    assert (source.id, source.place) == ("owl", "notes/owl.md · page 3 · A > B")
    assert {match.document_token for match in source.matches if match.query_token == "owls"} == {"owls"}


def test_what_the_documents_do_not_say_is_not_found(index: MuveraIndex) -> None:
    turn = last(Answerer(index).ask("How do I reset the password of my router?", Conversation()))
    assert (turn.status, turn.answer, turn.cited) == ("not_found", "", [])
    assert turn.sources  # what was nearest can be looked at


def test_a_calibrated_index_says_what_it_does_not_know(encoder: BundledEncoder) -> None:
    with MuveraIndex.create(None, encoder) as index:
        index.add([*TEXTS.values(), *(f"Note {i}: the {noun} is kept in room {i}." for i, noun in enumerate(NOUNS))])
        index.calibrate(n_queries=40)
        answerer = Answerer(index)
        assert last(answerer.ask(HUNT, Conversation())).status == "answered"
        assert last(answerer.ask("Who won the chess world championship?", Conversation())).status == "not_found"
        never = Answerer(index, settings=AnsweringSettings(min_relevance=1.0))
        assert last(never.ask("Who won the chess world championship?", Conversation())).status == "not_found"


NOUNS = (
    "ladder",
    "kettle",
    "violin",
    "saddle",
    "lantern",
    "anvil",
    "compass",
    "globe",
    "harp",
    "easel",
    "loom",
    "bell",
)


def test_an_empty_index_finds_nothing(encoder: BundledEncoder) -> None:
    with MuveraIndex.create(None, encoder) as index:
        turn = last(Answerer(index).ask(HUNT, Conversation()))
    assert (turn.status, turn.sources) == ("not_found", ())


def test_a_model_streams_its_answer_from_numbered_passages(index: MuveraIndex) -> None:
    model = SlowModel(responses=["At night [1]."], asked=[])
    turns = list(Answerer(index, model).ask(HUNT, Conversation()))
    texts = [turn.text for turn in turns if turn.status == "writing"]
    assert texts[0] == ""
    assert len(texts) > 5
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(texts))
    assert (turns[-1].status, turns[-1].text, turns[-1].cited) == ("answered", "At night [1].", [1])
    (messages,) = model.asked  # the first question is not rewritten
    assert "[1] (notes/owl.md · page 3 · A > B)\nBarn owls hunt" in str(messages[-1].content)
    assert str(messages[-1].content).endswith(f"Question: {HUNT}")


def test_a_model_is_not_asked_about_what_is_not_found(index: MuveraIndex) -> None:
    model = SlowModel(responses=["Anything"], asked=[])
    turn = last(Answerer(index, model).ask("How do I reset the password of my router?", Conversation()))
    assert (turn.status, model.asked) == ("not_found", [])


def test_a_model_rewrites_a_follow_up_and_remembers(index: MuveraIndex) -> None:
    model = SlowModel(responses=['"Where do barn owls\nnest?"', "In towers [1]."], asked=[])
    before = Turn(HUNT, HUNT, "answered", text="At night [1].")
    failed = Turn("Forget me", "Forget me", "failed")
    turn = last(Answerer(index, model).ask("Where do they nest?", Conversation([before, failed])))
    assert (turn.query, turn.text) == ("Where do barn owls nest?", "In towers [1].")
    rewriting, answering = model.asked
    assert "Last question: Where do they nest?" in str(rewriting[-1].content)
    assert [message.content for message in answering[1:3]] == [HUNT, "At night [1]."]
    assert "It means: Where do barn owls nest?" in str(answering[-1].content)
    assert "Forget me" not in str(model.asked)


def test_only_the_last_turns_are_remembered() -> None:
    turns = [Turn(str(i), str(i), "answered", text=str(i)) for i in range(6)]
    assert [turn.question for turn in Conversation(turns).remembered(2)] == ["4", "5"]
    assert Conversation(turns).remembered(0) == []
    assert len(Conversation(turns).remembered(9)) == 6


def test_thoughts_of_a_model_are_not_shown(index: MuveraIndex) -> None:
    model = SlowModel(responses=["<think>They ask about owls.</think>\nAt night [1]."], asked=[])
    turns = list(Answerer(index, model).ask(HUNT, Conversation()))
    assert turns[-1].text == "At night [1]."
    assert not any("They ask" in turn.text for turn in turns)


def test_a_model_that_fails_is_reported_with_what_it_wrote(index: MuveraIndex) -> None:
    turn = last(Answerer(index, FailingModel(responses=["Barn owls"])).ask(HUNT, Conversation()))
    assert (turn.status, turn.text) == ("failed", "Barn owls")
    assert turn.problem == "the model failed (ConnectionError: the connection was <b>lost</b>)"
    assert turn.sources[0].matches


def test_a_model_that_says_nothing_is_reported(index: MuveraIndex) -> None:
    turn = last(Answerer(index, SlowModel(responses=[" "], asked=[])).ask(HUNT, Conversation()))
    assert (turn.status, turn.problem) == ("failed", "the model wrote nothing: ask again")


def test_an_index_that_fails_is_reported(encoder: BundledEncoder) -> None:
    with MuveraIndex.create(None, encoder) as index:
        pass
    turn = last(Answerer(index).ask(HUNT, Conversation()))
    assert turn.status == "failed"
    assert "the index is closed" in str(turn.problem)


def test_a_follow_up_without_a_model_is_searched_with_the_words_before(index: MuveraIndex) -> None:
    conversation = Conversation([Turn(HUNT, HUNT, "answered", text="x")])
    turn = last(Answerer(index).ask("Where do they nest?", conversation))
    assert turn.query == f"{HUNT} Where do they nest?"
    assert turn.sources[0].id == "owl"
    assert [quote.text for quote in turn.quotes] == ["They nest in church towers and barns."]
    alone = last(Answerer(index).ask("What is rye bread baked from?", conversation))
    assert alone.query == "What is rye bread baked from?"


@pytest.mark.parametrize("question", ["why?", "And in winter, what happens?", "What do they eat?", "what about eggs"])
def test_questions_that_point_back(question: str) -> None:
    assert points_back(question)
    assert with_words_before(question, []) == question  # nothing was asked before


@pytest.mark.parametrize("question", ["Who wrote Hamlet?", "Which item costs most?", "Where are barn owls at home?"])
def test_questions_that_stand_alone(question: str) -> None:
    assert not points_back(question)


def test_sentences() -> None:
    text = (
        "# Owls\n\nThey eat e.g. mice.  And\nvoles! "
        "它们在夜间狩猎很多东西。它们吃老鼠和田鼠还有鸟。\n- an item of a list"
    )
    assert sentences_of(text) == [
        "They eat e.g. mice.",
        "And voles!",
        "它们在夜间狩猎很多东西。",
        "它们吃老鼠和田鼠还有鸟。",
        "- an item of a list",
    ]
    assert sentences_of("42") == ["42"]
    assert sentences_of(" \n ") == []


def test_long_questions_are_cut(index: MuveraIndex) -> None:
    settings = AnsweringSettings(max_question=len(HUNT))
    assert last(Answerer(index, settings=settings).ask(HUNT + " nonsense" * 99, Conversation())).question == HUNT


@pytest.mark.parametrize("name", ["n_sources", "n_remembered", "max_question", "min_relevance", "min_score"])
def test_settings_are_checked(name: str) -> None:
    with pytest.raises(InvalidInputError, match=name):
        AnsweringSettings(**{name: -1})

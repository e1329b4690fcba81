from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from langchain_muvera import MuveraRetriever
from muvera_core import MuveraIndex

EXAMPLE = Path(__file__).parents[2] / "examples" / "rag_langchain.py"
QUESTION = "who got the first nobel prize in physics"


def test_the_example_answers_and_names_its_sources(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), QUESTION, "--passages", "40"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    assert "Wilhelm Conrad Röntgen" in printed
    assert "[1] List of Nobel laureates in Physics (nq-0" in printed


async def test_its_chain_streams_a_models_answer(nq_index: MuveraIndex) -> None:
    make_chain: Any = runpy.run_path(str(EXAMPLE))["make_chain"]
    model = GenericFakeChatModel(messages=iter([AIMessage("It was Röntgen [1].")] * 2))
    chain = make_chain(MuveraRetriever(index=nq_index, k=2), model)
    pieces = list(chain.stream({"question": QUESTION}))
    answer = [piece["answer"] for piece in pieces if "answer" in piece]
    assert len(answer) > 3
    assert "".join(answer) == "It was Röntgen [1]."
    assert [piece["documents"][0].id for piece in pieces if "documents" in piece] == ["nq-0"]
    streamed = [piece["answer"] async for piece in chain.astream({"question": QUESTION}) if "answer" in piece]
    assert streamed == answer

"""Give an agent of LlamaIndex a search as its tool.

    python examples/recipes/agent_llama_index.py

The agent is LlamaIndex's ReActAgent. Its model here is a script: it asks the tool, and then answers with what it got.
Give it a real one, such as ``Ollama(model="llama3.2")`` of llama-index-llms-ollama, and it decides itself.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from llama_index.core.agent.workflow import ReActAgent
from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.tools import RetrieverTool
from llama_index.retrievers.muvera import MuveraRetriever

from muvera_core import MuveraIndex

MANUAL = {
    "pump": "The pump shows ERR-4012 until its filter is cleaned.",
    "valve": "The valve shows ERR-4077 until its seal is replaced.",
    "belt": "The belt is to be tightened once a year.",
}
QUESTION = "What is to be done about ERR-4077?"


class ScriptedModel(CustomLLM):
    """Stands in for a model, in the form that ReAct asks for: first it searches, then it answers."""

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex wants to know of a model."""
        return LLMMetadata(model_name="scripted")

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The next step."""
        seen = re.findall(r"Observation: (.*)", prompt)
        if seen and "ERR" in seen[-1]:
            return CompletionResponse(text=f"Thought: I can answer.\nAnswer: The manual says: {seen[-1]}")
        action = json.dumps({"input": QUESTION})
        return CompletionResponse(text=f"Thought: I need the manual.\nAction: search_manual\nAction Input: {action}")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The same, in one piece."""
        step = self.complete(prompt).text
        yield CompletionResponse(text=step, delta=step)


async def main() -> None:
    with MuveraIndex.create(None) as index:
        index.add(list(MANUAL.values()), ids=list(MANUAL))
        # "hybrid", because a model asks for error codes and names. min_score keeps noise from the model.
        tool = RetrieverTool.from_defaults(
            MuveraRetriever(index, similarity_top_k=1, mode="hybrid", min_score=0.4),
            name="search_manual",
            description="Searches the manual. Ask a whole question, with names and error codes.",
        )
        print(f"{tool.metadata.name}: {tool.metadata.description}")
        print("tool:", tool.call(QUESTION).content.strip())
        print("agent:", await ReActAgent(tools=[tool], llm=ScriptedModel()).run(QUESTION))


if __name__ == "__main__":
    asyncio.run(main())

"""Give an agent of LangChain a search as its tool.

    python examples/recipes/agent_langchain.py

The model here is a script: it asks the tool, and then answers with what it got. A real one decides itself; give it the
tool with ``model.bind_tools([tool])``, or let ``langchain.agents.create_agent(model, [tool])`` run the loop.
"""

from __future__ import annotations

from collections.abc import Callable

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, create_retriever_tool

from langchain_muvera import MuveraRetriever
from muvera_core import MuveraIndex

MANUAL = {
    "pump": "The pump shows ERR-4012 until its filter is cleaned.",
    "valve": "The valve shows ERR-4077 until its seal is replaced.",
    "belt": "The belt is to be tightened once a year.",
}
Model = Callable[[list[AnyMessage]], AIMessage]


def scripted_model(messages: list[AnyMessage]) -> AIMessage:
    """Stands in for a model: first it searches, then it answers."""
    if isinstance(messages[-1], ToolMessage):
        return AIMessage(f"The manual says: {messages[-1].text}")
    return AIMessage("", tool_calls=[{"name": "search_manual", "args": {"query": messages[-1].text}, "id": "1"}])


def run(model: Model, tool: BaseTool, question: str) -> list[AnyMessage]:
    """Let the model call the tool until it answers."""
    messages: list[AnyMessage] = [HumanMessage(question)]
    while True:
        reply = model(messages)
        messages.append(reply)
        if not reply.tool_calls:
            return messages
        messages += [tool.invoke(call) for call in reply.tool_calls]


def main() -> None:
    with MuveraIndex.create(None) as index:
        index.add(list(MANUAL.values()), ids=list(MANUAL))
        # "hybrid", because a model asks for error codes and names. min_score keeps noise from the model.
        retriever = MuveraRetriever(index=index, k=1, mode="hybrid", min_score=0.4)
        tool = create_retriever_tool(
            retriever, "search_manual", "Searches the manual. Ask a whole question, with names and error codes."
        )
        print(f"{tool.name}{tuple(tool.args)}: {tool.description}")
        for message in run(scripted_model, tool, "What is to be done about ERR-4077?"):
            print(f"{message.type}: {message.text or message.tool_calls[0]['args']}")  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
